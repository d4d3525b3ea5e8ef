// Shows the pages that have every word of the address, search.html?q=WORDS, or of the page's own field; a word also
// finds longer ones that begin with it.
const pages = new Map(searchIndex.docs.map((each) => [each.location, each]));
const found = lunr(function () {
  this.pipeline.remove(lunr.stemmer); // beginnings of words are looked for, not stems
  this.pipeline.remove(lunr.stopWordFilter);
  this.ref("location");
  this.field("title", { boost: 10 });
  this.field("text");
  searchIndex.docs.forEach((each) => this.add(each));
});
const field = document.getElementById("mkdocs-search-query");
const list = document.getElementById("mkdocs-search-results");

function matches(text) {
  const words = lunr.tokenizer(text).map((each) => String(each).replace(/^\W+|\W+$/g, "")).filter(Boolean);
  if (!words.length) return [];
  return found.query((query) => {
    for (const word of words) {
      query.term(word, { presence: lunr.Query.presence.REQUIRED, wildcard: lunr.Query.wildcard.TRAILING });
      query.term(word, { boost: 10, usePipeline: false });
    }
  });
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

function show() {
  const results = matches(field.value).slice(0, 30);
  list.replaceChildren(...results.map((each) => entry(pages.get(each.ref))));
  if (!results.length) list.textContent = list.dataset.noResultsText;
}

field.value = new URLSearchParams(location.search).get("q") ?? "";
field.addEventListener("input", show);
show();
