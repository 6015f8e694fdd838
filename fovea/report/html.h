#pragma once
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fovea/report/image.h"
#include "fovea/report/plot.h"
#include "fovea/report/slices.h"

namespace fovea::report {

enum class Tone { kPlain, kGood, kBad, kMuted };

/// A table cell: text, written as it is after escaping. Numbers are formatted by the caller (report/text.h: fixed()).
struct Cell {
  std::string text;
  Tone tone = Tone::kPlain;

  Cell(std::string t, Tone how = Tone::kPlain) : text(std::move(t)), tone(how) {}
  Cell(const char* t, Tone how = Tone::kPlain) : text(t), tone(how) {}
};

enum class Align { kText, kNumber };  // left; right with figures of equal width

struct Table {
  struct Column {
    std::string name;
    Align align = Align::kNumber;
  };
  std::string caption;
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
  bool last_row_is_total = false;  // set off by a rule
};

/// A figure that should be seen first, with what it is to be compared to.
struct Tile {
  std::string name, value, note;
  Tone tone = Tone::kPlain;
};

enum class NoticeKind { kInfo, kWarning };

/// Builds a report that is one HTML file: styles and pictures are inside, no script, nothing is fetched. It adapts to
/// light and dark screens and to print. Every text given is escaped; equal calls give equal bytes.
class HtmlReport {
 public:
  HtmlReport(std::string title, std::string subtitle = "");

  /// A section of the report, listed in the table of contents once there are three.
  void heading(std::string_view text);
  void subheading(std::string_view text);
  void paragraph(std::string_view text);
  void list(std::span<const std::string> items);
  void notice(std::string_view text, NoticeKind kind = NoticeKind::kInfo);
  void tiles(std::span<const Tile> tiles);
  void key_values(std::span<const std::pair<std::string, std::string>> pairs);
  /// Errors: ArgumentError when a row has another number of cells than there are columns.
  void table(const Table& table);
  /// Preformatted text: a command, a configuration.
  void code(std::string_view text);
  /// Colours and names of labels; `title` may be empty.
  void legend(std::span<const LabelStyle> styles, std::string_view title = "");
  /// The scale of heat_colour from 0 to `high`, e.g. "0" to "largest attention weight, 0.012".
  void heat_legend(std::string_view low, std::string_view high);
  /// A picture with its description for those who cannot see it (`alt`) and the caption below.
  void figure(const Image& image, std::string_view alt, std::string_view caption = "");
  void figure(const LinePlot& plot, std::string_view caption = "");
  void figure(const BarPlot& plot, std::string_view caption = "");
  /// Pictures side by side, each with its own caption, wrapping on narrow screens.
  struct Panel {
    Image image;
    std::string alt, caption;
  };
  void gallery(std::span<const Panel> panels, std::string_view caption = "");
  /// What `body` adds goes into a part that opens on a click (and in print).
  void details(std::string_view summary, const std::function<void()>& body, bool open = false);

  /// The whole file.
  std::string str() const;
  /// Writes str() to `path`, whole or not at all. Errors: IoError.
  void write(const std::filesystem::path& path) const;

 private:
  void element(const char* tag, std::string_view text, const char* attributes = "");
  void image(const Image& image, std::string_view alt);

  std::string title_, subtitle_, body_;
  std::vector<std::string> headings_;
};

}  // namespace fovea::report
