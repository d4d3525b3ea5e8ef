# The package with PyTorch's CUDA build, at the versions of constraints.txt.
#   docker build -t robustarch .
#   docker run --gpus all -v "$PWD:/workspace" robustarch python -m robust_arch.train -m study=demo
# The host needs an NVIDIA driver for CUDA 13 and the NVIDIA Container Toolkit.
FROM python:3.11-slim
# torch.compile needs a C++ compiler
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/robust-arch
COPY constraints.txt ./
# on Linux the package index has the CUDA build; in a layer of its own, as it changes rarely
RUN pip install --no-cache-dir --constraint constraints.txt torch torchvision
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[parquet,timm,optuna]'
WORKDIR /workspace
CMD ["robust-arch", "--help"]
