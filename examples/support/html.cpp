#include "html.h"

#include <fmt/format.h>

#include <reel/autograd/utf8.h>

namespace reel::html {
namespace {

// Of charts, in a page and in a file of their own.
constexpr std::string_view chart_styles = R"(
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--quiet); fill: none; }
svg .grid { stroke: var(--rule); fill: none; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .raw { fill: none; stroke-width: 1; opacity: .45; }
svg .mark { fill: var(--panel); stroke-width: 1.5; }
svg .best { fill: var(--ink); stroke: none; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); }
.s3 { stroke: var(--c3); } .s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); }
)";

// Colours have a contrast of at least 4.5 : 1 to the page for text, and 3 : 1 for lines.
constexpr std::string_view light_colours = R"(
  --page: #fff; --ink: #1b1f24; --quiet: #545d68; --rule: #c9d1d9; --panel: #f5f7f9; --link: #0b57d0;
  --c0: #0b57d0; --c1: #b3261e; --c2: #146c2e; --c3: #7b1fa2; --c4: #8a5100; --c5: #00677d;)";

constexpr std::string_view page_styles = R"(
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --ink: #e6e9ec; --quiet: #a9b2bc; --rule: #3d4650; --panel: #1d2227; --link: #8ab4f8;
    --c0: #8ab4f8; --c1: #f28b82; --c2: #81c995; --c3: #d7aefb; --c4: #fdc069; --c5: #78d9ec;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
header, nav, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
h1 { margin: 1rem 0 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--rule); font-size: 1.3rem; }
h3 { margin: 1.2rem 0 .3rem; font-size: 1.05rem; overflow-wrap: anywhere; }
p { margin: .3rem 0; max-width: 48rem; }
header p, footer p, figcaption, caption { color: var(--quiet); }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .3rem .6rem; background: var(--page); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .5rem 0; padding: 0; list-style: none; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; min-width: 0; }
figcaption { font-size: .9rem; }
figcaption strong { display: block; color: var(--ink); font-size: 1rem; }
svg.chart { display: block; width: 100%; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .2rem 0; padding: 0; list-style: none; font-size: .9rem; }
.legend li { overflow-wrap: anywhere; } .legend svg { width: 44px; height: 14px; vertical-align: middle; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .2rem 0; }
th, td { padding: .15rem .7rem .15rem 0; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; } td { overflow-wrap: anywhere; }
details { margin-top: .4rem; font-size: .9rem; } summary { cursor: pointer; color: var(--link); }
pre { margin: .3rem 0; padding: .6rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; font: .9rem/1.4 ui-monospace, monospace; }
footer { margin-top: 2rem; padding-bottom: 1rem; font-size: .9rem; }
@media print {
  :root { --page: #fff; --ink: #000; --quiet: #444; --rule: #bbb; --panel: #fff; --link: #000;
    --c0: #0b57d0; --c1: #b3261e; --c2: #146c2e; --c3: #7b1fa2; --c4: #8a5100; --c5: #00677d; }
  nav, .skip, details:not([open]) { display: none; }
  figure, pre, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
}
)";

std::string row(const std::vector<std::string>& cells, bool is_header) {
  std::string text = "<tr>";
  for (std::size_t i = 0; i < cells.size(); ++i)
    text += is_header ? fmt::format("<th scope=\"col\">{}</th>", escaped(cells[i]))
            : i == 0  ? fmt::format("<th scope=\"row\">{}</th>", escaped(cells[i]))
                      : fmt::format("<td>{}</td>", escaped(cells[i]));
  return text + "</tr>\n";
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const auto [symbol, length] = utf8::symbol_at(text, i);
    const bool is_control =
        (symbol < 0x20 && symbol != U'\n' && symbol != U'\t') || (symbol >= 0x7F && symbol < 0xA0);
    const bool is_noncharacter =
        (symbol & 0xFFFE) == 0xFFFE || (symbol >= 0xFDD0 && symbol <= 0xFDEF);
    if (length == 0 || is_control || is_noncharacter)
      result += "\uFFFD";
    else if (symbol == U'&')
      result += "&amp;";
    else if (symbol == U'<')
      result += "&lt;";
    else if (symbol == U'>')
      result += "&gt;";
    else if (symbol == U'"')
      result += "&quot;";
    else if (symbol == U'\'')
      result += "&#39;";
    else
      result += text.substr(i, length);
    i += length == 0 ? 1 : length;
  }
  return result;
}

std::string svg_file(double width, double height, std::string_view content) {
  // A viewer that shows the file as a picture may know no variables of CSS: colours are put in.
  std::string styles(chart_styles);
  for (std::size_t at; (at = styles.find("var(--")) != std::string::npos;) {
    const std::size_t end = styles.find(')', at);
    const std::string name = styles.substr(at + 4, end - at - 4) + ": ";
    const std::size_t colour = light_colours.find(name) + name.size();
    styles.replace(at, end + 1 - at,
                   light_colours.substr(colour, light_colours.find(';', colour) - colour));
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\">\n"
      "<style>{2}svg .title {{ font-size: 15px; font-weight: 600; }}</style>\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n{3}</svg>\n",
      width, height, styles, content);
}

Table::Table(std::string caption, std::vector<std::string> header)
    : caption_(std::move(caption)), header_(std::move(header)) {}

std::string Table::str() const {
  std::string text = fmt::format(
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\">\n<table>\n"
      "<caption>{0}</caption>\n<thead>\n{1}</thead>\n<tbody>\n",
      escaped(caption_), row(header_, true));
  for (const auto& cells : rows_) text += row(cells, false);
  return text + "</tbody>\n</table>\n</div>\n";
}

std::string page(std::string_view title, std::string_view subtitle,
                 const std::vector<Section>& sections, std::string_view footer) {
  std::string links, content;
  for (const Section& s : sections) {
    links += fmt::format("<li><a href=\"#{}\">{}</a></li>\n", s.id, escaped(s.title));
    content +=
        fmt::format("<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1}</h2>\n{2}</section>\n",
                    s.id, escaped(s.title), s.content);
  }
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<link rel=\"icon\" href=\"data:,\">\n<title>{0}</title>\n<style>{1}</style>\n</head>\n"
      "<body>\n<a class=\"skip\" href=\"#main\">Skip to the content</a>\n"
      "<header>\n<h1>{0}</h1>\n<p>{2}</p>\n</header>\n"
      "<nav aria-label=\"Sections\">\n<ul>\n{3}</ul>\n</nav>\n"
      "<main id=\"main\">\n{4}</main>\n<footer>\n<p>{5}</p>\n</footer>\n</body>\n</html>\n",
      escaped(title),
      fmt::format(":root {{{}\n  color-scheme: light dark;\n}}{}{}", light_colours, page_styles,
                  chart_styles),
      escaped(subtitle), links, content, escaped(footer));
}

}  // namespace reel::html
