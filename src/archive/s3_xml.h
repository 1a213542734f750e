#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace offprint::archive {

// An element as S3 services answer with: names without namespaces, attributes dropped.
struct XmlElement {
  std::string name;
  std::string text;  // decoded; of the element itself
  std::vector<XmlElement> children;

  // The first child of the name; nullptr without one.
  const XmlElement* child(std::string_view child_name) const;
  // Its text, or nothing.
  std::string text_of(std::string_view child_name) const;
};

// The root. Tolerant: reads comments, CDATA and what a prolog has, and looks for no schema.
// kCorrupt: it is no whole element, or is nested deeper than any answer of S3.
Result<XmlElement> parse_xml(std::string_view text);

}  // namespace offprint::archive
