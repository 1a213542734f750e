#include "ltx/types.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/random.h"

namespace offprint {

Lineage Lineage::random() {
  Lineage lineage;
  fill_random(lineage.bytes);
  return lineage;
}

std::string Lineage::text() const { return to_hex(bytes); }

std::optional<Lineage> Lineage::parse(std::string_view text) {
  auto raw = from_hex(text);
  if (!raw || raw->size() != 16) return std::nullopt;
  Lineage lineage;
  std::copy(raw->begin(), raw->end(), lineage.bytes.begin());
  return lineage;
}

std::string Bookmark::text() const {
  return fmt::format("{:08x}-{:08x}-{:08x}-{}", epoch.value, txid.value >> 32,
                     txid.value & 0xffffffffu, lineage.text());
}

std::optional<Bookmark> Bookmark::parse(std::string_view text) {
  if (text.size() != 59 || text[8] != '-' || text[17] != '-' || text[26] != '-')
    return std::nullopt;
  auto epoch = parse_hex(text.substr(0, 8), 8);
  auto high = parse_hex(text.substr(9, 8), 8);
  auto low = parse_hex(text.substr(18, 8), 8);
  auto lineage = Lineage::parse(text.substr(27));
  if (!epoch || !high || !low || !lineage) return std::nullopt;
  return Bookmark{Epoch{static_cast<std::uint32_t>(*epoch)}, TxId{*high << 32 | *low}, *lineage};
}

}  // namespace offprint
