#include "archive/s3_xml.h"

#include <charconv>
#include <cstdint>
#include <optional>

namespace offprint::archive {
namespace {

constexpr int kDepthMax = 16;
constexpr std::string_view kSpace = " \t\r\n";

void append_utf8(std::string& to, std::uint32_t c) {
  auto put = [&](std::uint32_t byte) { to += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xc0 | c >> 6);
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3f));
  } else {
    put(0xf0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3f));
    put(0x80 | (c >> 6 & 0x3f));
  }
  put(0x80 | (c & 0x3f));
}

std::optional<std::uint32_t> entity(std::string_view name) {
  if (name == "amp") return '&';
  if (name == "lt") return '<';
  if (name == "gt") return '>';
  if (name == "quot") return '"';
  if (name == "apos") return '\'';
  if (!name.starts_with('#')) return std::nullopt;
  bool hex = name.starts_with("#x");
  name.remove_prefix(hex ? 2 : 1);
  std::uint32_t number = 0;
  auto [end, error] =
      std::from_chars(name.data(), name.data() + name.size(), number, hex ? 16 : 10);
  if (error != std::errc() || end != name.data() + name.size() || number > 0x10ffff)
    return std::nullopt;
  return number;
}

void append_decoded(std::string& to, std::string_view text) {
  while (!text.empty()) {
    std::size_t mark = text.find('&');
    to += text.substr(0, mark);
    if (mark == std::string_view::npos) return;
    text.remove_prefix(mark);
    std::size_t end = text.find(';');
    auto decoded = end == std::string_view::npos ? std::nullopt : entity(text.substr(1, end - 1));
    if (decoded) {
      append_utf8(to, *decoded);
      text.remove_prefix(end + 1);
    } else {
      to += '&';
      text.remove_prefix(1);
    }
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  bool document(XmlElement& root) { return skip_to_root() && element(root, 1); }

 private:
  // Drops everything up to and with `end`.
  bool skip_past(std::string_view end) {
    std::size_t at = text_.find(end);
    if (at == std::string_view::npos) return false;
    text_.remove_prefix(at + end.size());
    return true;
  }
  bool skip_to_root() {
    for (;;) {
      std::size_t mark = text_.find('<');
      if (mark == std::string_view::npos) return false;
      text_.remove_prefix(mark);
      if (text_.starts_with("<!--")) {
        if (!skip_past("-->")) return false;
      } else if (text_.starts_with("<?") || text_.starts_with("<!")) {
        if (!skip_past(">")) return false;
      } else {
        return true;
      }
    }
  }

  // At "<name".
  bool element(XmlElement& to, int depth) {
    if (depth > kDepthMax || !text_.starts_with('<')) return false;
    text_.remove_prefix(1);
    std::size_t end = text_.find('>');
    if (end == std::string_view::npos) return false;
    std::string_view tag = text_.substr(0, end);
    text_.remove_prefix(end + 1);
    bool closed = tag.ends_with('/');
    if (closed) tag.remove_suffix(1);
    to.name = local_name(tag);
    return !to.name.empty() && (closed || content(to, depth));
  }

  bool content(XmlElement& to, int depth) {
    for (;;) {
      std::size_t mark = text_.find('<');
      if (mark == std::string_view::npos) return false;
      append_decoded(to.text, text_.substr(0, mark));
      text_.remove_prefix(mark);
      if (text_.starts_with("</")) {
        std::size_t end = text_.find('>');
        if (end == std::string_view::npos) return false;
        bool own = local_name(text_.substr(2, end - 2)) == to.name;
        text_.remove_prefix(end + 1);
        return own;
      }
      if (text_.starts_with("<!--")) {
        if (!skip_past("-->")) return false;
      } else if (text_.starts_with("<![CDATA[")) {
        std::size_t end = text_.find("]]>");
        if (end == std::string_view::npos) return false;
        to.text += text_.substr(9, end - 9);
        text_.remove_prefix(end + 3);
      } else if (!element(to.children.emplace_back(), depth + 1)) {
        return false;
      }
    }
  }

  static std::string local_name(std::string_view tag) {
    tag = tag.substr(0, tag.find_first_of(kSpace));
    std::size_t colon = tag.find(':');
    return std::string(colon == std::string_view::npos ? tag : tag.substr(colon + 1));
  }

  std::string_view text_;
};

}  // namespace

const XmlElement* XmlElement::child(std::string_view child_name) const {
  for (const XmlElement& each : children) {
    if (each.name == child_name) return &each;
  }
  return nullptr;
}

std::string XmlElement::text_of(std::string_view child_name) const {
  const XmlElement* found = child(child_name);
  return found == nullptr ? "" : found->text;
}

Result<XmlElement> parse_xml(std::string_view text) {
  XmlElement root;
  if (!Parser(text).document(root)) return fail(Code::kCorrupt, "an answer that is no XML");
  return root;
}

}  // namespace offprint::archive
