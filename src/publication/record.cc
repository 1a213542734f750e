#include "publication/record.h"

#include <array>
#include <bit>

#include "sqlite/btree_page.h"

namespace offprint::publication {

Result<Row> record_columns(ByteView record, std::size_t count) {
  auto wrong = [] { return fail(Code::kCorrupt, "a record of a table is damaged"); };
  const auto header = sqlite::read_varint(record);
  if (header.size == 0 || header.value > record.size()) return wrong();
  ByteView types = record.first(header.value).subspan(header.size);
  ByteView body = record.subspan(header.value);
  Row row;
  while (row.size() < count) {
    const auto type = sqlite::read_varint(types);
    if (type.size == 0) return wrong();
    types = types.subspan(type.size);
    constexpr std::array<std::size_t, 12> kSizes = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0};
    const std::size_t size = type.value < 12 ? kSizes[type.value] : (type.value - 12) / 2;
    if (size > body.size()) return wrong();
    ByteView bytes = body.first(size);
    body = body.subspan(size);
    if (type.value == 0) {
      row.emplace_back(std::monostate());
    } else if (type.value <= 6) {
      std::uint64_t number = (bytes[0] & 0x80) != 0 ? ~std::uint64_t{0} : 0;
      for (std::uint8_t byte : bytes) number = number << 8 | byte;
      row.emplace_back(static_cast<std::int64_t>(number));
    } else if (type.value == 7) {
      row.emplace_back(std::bit_cast<double>(load_be<std::uint64_t>(bytes.data())));
    } else if (type.value < 10) {
      row.emplace_back(static_cast<std::int64_t>(type.value - 8));
    } else if (type.value % 2 == 0) {
      row.emplace_back(Bytes(bytes.begin(), bytes.end()));
    } else {
      row.emplace_back(std::string(as_text(bytes)));
    }
  }
  return row;
}

}  // namespace offprint::publication
