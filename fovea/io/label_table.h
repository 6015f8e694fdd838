#pragma once
#include <map>
#include <string>
#include <string_view>

namespace fovea::io {

/// XML text of a Caret/Connectome Workbench volume label table, as put into NIfTI extensions with code 0. Colours
/// follow the golden angle from the label value, so that neighbours differ and the same value always has the same
/// colour.
std::string label_table_xml(const std::map<int, std::string>& names);

/// The names in such a text: every <Label Key="n" ...>name</Label>, CDATA or escaped. Anything else is passed over;
/// text that is no label table gives an empty map.
std::map<int, std::string> parse_label_table(std::string_view xml);

}  // namespace fovea::io
