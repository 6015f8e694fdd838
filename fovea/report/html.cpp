#include "fovea/report/html.h"

#include "fovea/core/error.h"
#include "fovea/report/png.h"
#include "fovea/report/save_file.h"
#include "fovea/report/text.h"

namespace fovea::report {
namespace {

constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--page:#fff;--panel:#f5f7f8;--ink:#1c2126;--muted:#5b6670;--rule:#d9dee3;
--accent:#1f5f8b;
--good:#146c43;--bad:#a32a1c;--warn-bg:#fdf4e1;--warn:#8a5a00}
@media (prefers-color-scheme:dark){:root{--page:#14181c;--panel:#1d2328;--ink:#e6eaed;--muted:#98a4ad;--rule:#343c43;
--accent:#7fb8dd;
--good:#6fce9e;--bad:#f19082;--warn-bg:#332a17;--warn:#f0c46c}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1040px;margin:0 auto;padding:32px 24px 64px}
header{border-bottom:2px solid var(--accent);padding-bottom:14px;margin-bottom:22px}
h1{font-size:1.75rem;line-height:1.25;margin:0}
header p{margin:6px 0 0;color:var(--muted)}
h2{font-size:1.25rem;margin:40px 0 10px;padding-bottom:5px;border-bottom:1px solid var(--rule)}
h3{font-size:1.03rem;margin:26px 0 6px}
p,ul{max-width:44em;margin:10px 0}
nav ol{margin:0 0 6px;padding:0;list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.92rem}
a{color:var(--accent);text-decoration:none}
a:hover,a:focus{text-decoration:underline}
.notice{border-left:4px solid var(--accent);background:var(--panel);padding:9px 14px;margin:14px 0;
border-radius:0 4px 4px 0}
.notice.warning{border-color:var(--warn);background:var(--warn-bg)}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.tile{flex:1 1 170px;background:var(--panel);border:1px solid var(--rule);border-radius:6px;padding:11px 14px}
.tile .name{color:var(--muted);font-size:.86rem}
.tile .value{font-size:1.7rem;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
.tile .note{font-size:.86rem;color:var(--muted)}
.good{color:var(--good)}.bad{color:var(--bad)}.muted{color:var(--muted)}
.scroll{overflow-x:auto;margin:14px 0}
table{border-collapse:collapse;font-size:.94rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);font-size:.9rem;padding-bottom:6px}
th{font-weight:600;border-bottom:1.5px solid var(--muted);vertical-align:bottom}
th,td{padding:5px 14px 5px 0;text-align:left}
th.number,td.number{text-align:right;padding-left:14px}
td{border-bottom:1px solid var(--rule)}
tr.total td{border-top:1.5px solid var(--muted);font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 20px;margin:12px 0;font-size:.94rem}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--panel);border:1px solid var(--rule);border-radius:4px;padding:10px 12px;overflow-x:auto;
font-size:.85rem;line-height:1.45}
figure{margin:16px 0}
figure img,figure svg{max-width:100%;height:auto;display:block}
figure img{background:#000;border-radius:3px}
figcaption{color:var(--muted);font-size:.9rem;margin-top:6px;max-width:60em}
.gallery{display:flex;flex-wrap:wrap;gap:14px;align-items:flex-end}
.gallery figure{margin:0;min-width:0}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:10px 0;font-size:.92rem;align-items:center}
.legend .title{color:var(--muted)}
.swatch{display:inline-block;width:.85em;height:.85em;border-radius:2px;margin-right:.45em;vertical-align:-.06em;
outline:1px solid #8888}
.heat img{height:12px;width:220px;border-radius:2px;display:block}
details{border:1px solid var(--rule);border-radius:6px;padding:0 14px;margin:14px 0}
details[open]{padding-bottom:8px}
summary{cursor:pointer;padding:9px 0;font-weight:600}
@media print{:root{--page:#fff;--panel:#fff;--ink:#000;--muted:#444;--rule:#bbb;--accent:#000;--good:#0b5130;
--bad:#8b1a0f;--warn-bg:#fff}
body{font-size:10.5pt}main{max-width:none;padding:0}nav{display:none}figure,table,.tiles,.notice{break-inside:avoid}
h2,h3{break-after:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}details::details-content{content-visibility:visible;
block-size:auto}}
)css";

const char* class_of(Tone tone) {
  switch (tone) {
    case Tone::kGood:
      return "good";
    case Tone::kBad:
      return "bad";
    case Tone::kMuted:
      return "muted";
    default:
      return "";
  }
}

std::string class_attribute(std::string_view one, std::string_view two = "") {
  std::string names(one);
  if (!two.empty()) names += (names.empty() ? "" : " ") + std::string(two);
  return names.empty() ? "" : " class=\"" + names + "\"";
}

}  // namespace

HtmlReport::HtmlReport(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void HtmlReport::element(const char* tag, std::string_view text, const char* attributes) {
  body_ += std::string("<") + tag + attributes + ">" + escape(text) + "</" + tag + ">\n";
}

void HtmlReport::heading(std::string_view text) {
  headings_.emplace_back(text);
  element("h2", text, (" id=\"s" + std::to_string(headings_.size()) + "\"").c_str());
}

void HtmlReport::subheading(std::string_view text) { element("h3", text); }
void HtmlReport::paragraph(std::string_view text) { element("p", text); }
void HtmlReport::code(std::string_view text) { element("pre", text); }

void HtmlReport::list(std::span<const std::string> items) {
  body_ += "<ul>\n";
  for (const std::string& item : items) element("li", item);
  body_ += "</ul>\n";
}

void HtmlReport::notice(std::string_view text, NoticeKind kind) {
  element("div", text, kind == NoticeKind::kWarning ? " class=\"notice warning\"" : " class=\"notice\"");
}

void HtmlReport::tiles(std::span<const Tile> tiles) {
  body_ += "<div class=\"tiles\">\n";
  for (const Tile& tile : tiles) {
    body_ += "<div class=\"tile\">";
    element("div", tile.name, " class=\"name\"");
    element("div", tile.value, class_attribute("value", class_of(tile.tone)).c_str());
    element("div", tile.note, " class=\"note\"");
    body_ += "</div>\n";
  }
  body_ += "</div>\n";
}

void HtmlReport::key_values(std::span<const std::pair<std::string, std::string>> pairs) {
  body_ += "<dl>\n";
  for (const auto& [key, value] : pairs) element("dt", key), element("dd", value);
  body_ += "</dl>\n";
}

void HtmlReport::table(const Table& table) {
  for (const auto& row : table.rows) {
    if (row.size() == table.columns.size()) continue;
    throw ArgumentError("HtmlReport::table: a row of '" + table.caption + "' has " + std::to_string(row.size()) +
                        " cells, expected " + std::to_string(table.columns.size()) + " (its columns)");
  }
  const auto align = [&](size_t column) { return table.columns[column].align == Align::kNumber ? "number" : ""; };
  body_ += "<div class=\"scroll\"><table>\n";
  if (!table.caption.empty()) element("caption", table.caption);
  body_ += "<thead><tr>";
  for (size_t c = 0; c < table.columns.size(); ++c) {
    element("th", table.columns[c].name, (" scope=\"col\"" + class_attribute(align(c))).c_str());
  }
  body_ += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    body_ += table.last_row_is_total && &row == &table.rows.back() ? "<tr class=\"total\">" : "<tr>";
    for (size_t c = 0; c < row.size(); ++c)
      element("td", row[c].text, class_attribute(align(c), class_of(row[c].tone)).c_str());
    body_ += "</tr>\n";
  }
  body_ += "</tbody></table></div>\n";
}

void HtmlReport::legend(std::span<const LabelStyle> styles, std::string_view title) {
  body_ += "<div class=\"legend\">";
  if (!title.empty()) element("span", title, " class=\"title\"");
  for (const LabelStyle& style : styles) {
    body_ += "<span><span class=\"swatch\" style=\"background:" + to_hex(style.colour) + "\"></span>" +
             escape(style.name) + "</span>\n";
  }
  body_ += "</div>\n";
}

void HtmlReport::heat_legend(std::string_view low, std::string_view high) {
  body_ += "<div class=\"legend heat\">";
  element("span", low);
  image(heat_bar(220, 1), "colour scale");
  element("span", high);
  body_ += "</div>\n";
}

void HtmlReport::image(const Image& image, std::string_view alt) {
  body_ += "<img alt=\"" + escape(alt) + "\" width=\"" + std::to_string(image.width) + "\" height=\"" +
           std::to_string(image.height) + "\" src=\"" + png_data_uri(image) + "\">";
}

void HtmlReport::figure(const Image& picture, std::string_view alt, std::string_view caption) {
  body_ += "<figure>";
  image(picture, alt);
  if (!caption.empty()) element("figcaption", caption);
  body_ += "</figure>\n";
}

void HtmlReport::figure(const LinePlot& plot, std::string_view caption) {
  body_ += "<figure>" + to_svg(plot);
  if (!caption.empty()) element("figcaption", caption);
  body_ += "</figure>\n";
}

void HtmlReport::figure(const BarPlot& plot, std::string_view caption) {
  body_ += "<figure>" + to_svg(plot);
  if (!caption.empty()) element("figcaption", caption);
  body_ += "</figure>\n";
}

void HtmlReport::gallery(std::span<const Panel> panels, std::string_view caption) {
  body_ += "<figure><div class=\"gallery\">\n";
  for (const Panel& panel : panels) figure(panel.image, panel.alt, panel.caption);
  body_ += "</div>";
  if (!caption.empty()) element("figcaption", caption);
  body_ += "</figure>\n";
}

void HtmlReport::details(std::string_view summary, const std::function<void()>& body, bool open) {
  body_ += open ? "<details open>" : "<details>";
  element("summary", summary);
  body();
  body_ += "</details>\n";
}

std::string HtmlReport::str() const {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";
  out += escape(title_) + "</title>\n<style>" + kStyle + "</style>\n</head>\n<body>\n<main>\n<header><h1>" +
         escape(title_) + "</h1>";
  if (!subtitle_.empty()) out += "<p>" + escape(subtitle_) + "</p>";
  out += "</header>\n";
  if (headings_.size() >= 3) {
    out += "<nav aria-label=\"Contents\"><ol>\n";
    for (size_t i = 0; i < headings_.size(); ++i) {
      out += "<li><a href=\"#s" + std::to_string(i + 1) + "\">" + escape(headings_[i]) + "</a></li>\n";
    }
    out += "</ol></nav>\n";
  }
  return out + body_ + "</main>\n</body>\n</html>\n";
}

void HtmlReport::write(const std::filesystem::path& path) const { save_file(path, str()); }

}  // namespace fovea::report
