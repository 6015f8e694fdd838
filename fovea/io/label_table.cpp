#include "fovea/io/label_table.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>

namespace fovea::io {

namespace {

std::array<double, 3> colour_of(int label) {
  // Hue turns by the golden angle; value and saturation alternate a little. HSV to RGB.
  const double hue = std::fmod(std::abs(double(label)) * 137.50776405, 360.0) / 60.0;
  const double saturation = label % 2 ? 0.75 : 0.55, value = label % 3 ? 0.95 : 0.75;
  std::array<double, 3> rgb;
  for (int c = 0; c < 3; ++c) {
    const double k = std::fmod((c == 0 ? 5.0 : c == 1 ? 3.0 : 1.0) + hue, 6.0);
    rgb[c] = value * (1 - saturation * std::max(0.0, std::min({k, 4 - k, 1.0})));
  }
  return rgb;
}

// A CDATA section cannot hold its own end mark: split there.
std::string cdata(std::string_view text) {
  std::string out = "<![CDATA[";
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 3) == "]]>")
      out += "]]]]><![CDATA[>", i += 2;
    else
      out += text[i];
  }
  return out + "]]>";
}

std::string unescape(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, char>, 5> entities{
      {{"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}, {"&amp;", '&'}}};
  std::string out;
  for (size_t i = 0; i < text.size();) {
    size_t step = 1;
    char c = text[i];
    for (const auto& [name, meaning] : entities)
      if (text.substr(i, name.size()) == name) c = meaning, step = name.size();
    out += c, i += step;
  }
  return out;
}

// Value of Key="..." or Key='...' among the attributes of a tag.
std::optional<int> key_of(std::string_view attributes) {
  for (size_t at = attributes.find("Key"); at != attributes.npos; at = attributes.find("Key", at + 1)) {
    size_t i = attributes.find_first_not_of(" \t\r\n", at + 3);
    if (i == attributes.npos || attributes[i] != '=') continue;
    i = attributes.find_first_not_of(" \t\r\n", i + 1);
    if (i == attributes.npos || (attributes[i] != '"' && attributes[i] != '\'')) continue;
    const size_t end = attributes.find(attributes[i], i + 1);
    if (end == attributes.npos) return std::nullopt;
    int value = 0;
    const auto parsed = std::from_chars(attributes.data() + i + 1, attributes.data() + end, value);
    if (parsed.ec == std::errc() && parsed.ptr == attributes.data() + end) return value;
    return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

std::string label_table_xml(const std::map<int, std::string>& names) {
  std::string xml =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CaretExtension>\n<VolumeInformation Index=\"0\">\n<LabelTable>\n";
  for (const auto& [label, name] : names) {
    const auto rgb = colour_of(label);
    char tag[160];
    std::snprintf(tag, sizeof tag, "<Label Key=\"%d\" Red=\"%.3f\" Green=\"%.3f\" Blue=\"%.3f\" Alpha=\"1\">", label,
                  rgb[0], rgb[1], rgb[2]);
    xml += tag + cdata(name) + "</Label>\n";
  }
  return xml + "</LabelTable>\n<VolumeType><![CDATA[Label]]></VolumeType>\n</VolumeInformation>\n</CaretExtension>\n";
}

std::map<int, std::string> parse_label_table(std::string_view xml) {
  std::map<int, std::string> names;
  constexpr std::string_view open = "<Label", cdata_open = "<![CDATA[", cdata_close = "]]>";
  for (size_t at = xml.find(open); at != xml.npos; at = xml.find(open, at)) {
    at += open.size();
    if (at >= xml.size() || std::string_view(" \t\n\r").find(xml[at]) == xml.npos) continue;  // <LabelTable>
    const size_t tag_end = xml.find('>', at);
    if (tag_end == xml.npos) break;
    const auto key = key_of(xml.substr(at, tag_end - at));
    at = tag_end + 1;
    if (xml[tag_end - 1] == '/') continue;
    // Text and CDATA sections up to the next tag.
    std::string name;
    while (at < xml.size()) {
      if (xml.substr(at, cdata_open.size()) == cdata_open) {
        const size_t start = at + cdata_open.size(), end = xml.find(cdata_close, start);
        if (end == xml.npos) return names;
        name += xml.substr(start, end - start), at = end + cdata_close.size();
      } else if (xml[at] == '<') {
        break;
      } else {
        const size_t end = std::min(xml.find('<', at), xml.size());
        const std::string_view text = xml.substr(at, end - at);
        if (text.find_first_not_of(" \t\r\n") != text.npos) name += unescape(text);  // else: layout between the tags
        at = end;
      }
    }
    if (key) names[*key] = name;
  }
  return names;
}

}  // namespace fovea::io
