// Shows the pages that match the words in the address, search.html?q=WORDS, or in the page's own field.
const pages = new Map(searchIndex.docs.map((each) => [each.location, each]));
const found = lunr(function () {
  this.ref("location");
  this.field("title", { boost: 10 });
  this.field("text");
  searchIndex.docs.forEach((each) => this.add(each));
});
const field = document.getElementById("mkdocs-search-query");
const list = document.getElementById("mkdocs-search-results");

function show() {
  const words = lunr.tokenizer(field.value).map(String);
  // each word as it is, and as the beginning of a longer one
  const matches = words.length
    ? found.query((query) =>
        words.forEach((word) => {
          query.term(word, { boost: 10 });
          query.term(word, { wildcard: lunr.Query.wildcard.TRAILING });
        }),
      )
    : [];
  list.replaceChildren(...matches.slice(0, 30).map((match) => entry(pages.get(match.ref))));
  if (!matches.length) list.textContent = list.dataset.noResultsText;
}

function entry(page) {
  const link = document.createElement("a");
  link.href = page.location;
  link.textContent = page.title;
  const heading = document.createElement("h3");
  heading.append(link);
  const text = document.createElement("p");
  text.textContent = page.text.slice(0, 200);
  const article = document.createElement("article");
  article.append(heading, text);
  return article;
}

field.value = new URLSearchParams(location.search).get("q") ?? "";
field.addEventListener("input", show);
show();
