#include "database/touched_tables.h"

#include <algorithm>
#include <set>

#include "sqlite/btree_page.h"
#include "sqlite/connection.h"
#include "sqlite/page_database.h"

namespace offprint::database {
namespace {

constexpr int kDepthMax = 20;  // SQLite's own

// The children of an interior page, as far as it is one and sound.
std::vector<PageNo> children_of(ByteView image, PageNo number, std::uint32_t usable) {
  std::vector<PageNo> children;
  auto page = sqlite::BtreePage::parse(image, number, usable);
  if (!page || page->is_leaf()) return children;
  for (std::size_t i = 0; i < page->cell_count(); ++i) {
    auto cell = page->cell(i);
    if (!cell) return children;
    children.push_back(cell->child);
  }
  children.push_back(page->last_child());
  return children;
}

class Search {
 public:
  Search(Snapshot& state, std::uint32_t usable, std::set<PageNo> wanted)
      : state_(state), usable_(usable), wanted_(std::move(wanted)) {}

  // Whether the b-tree has one of the pages.
  Result<bool> is_touched(PageNo root) {
    if (wanted_.contains(root)) return true;
    // All leaves are equally deep: which pages are leaves is told without reading them.
    int depth = 0;
    for (PageNo page = root; depth < kDepthMax; ++depth) {
      OFFPRINT_TRY_ASSIGN(auto children, children(page));
      if (children.empty()) break;
      page = children.front();
    }
    return has_wanted(root, depth);
  }

 private:
  Result<std::vector<PageNo>> children(PageNo page) {
    if (page == 0 || page > state_.page_count()) return std::vector<PageNo>();
    OFFPRINT_TRY_ASSIGN(ByteView image, state_.page(page));
    return children_of(image, page, usable_);
  }
  Result<bool> has_wanted(PageNo page, int depth) {
    if (depth == 0) return false;
    OFFPRINT_TRY_ASSIGN(auto below, children(page));
    for (PageNo child : below) {
      if (wanted_.contains(child)) return true;
    }
    for (PageNo child : below) {
      if (depth == 1) break;
      OFFPRINT_TRY_ASSIGN(bool found, has_wanted(child, depth - 1));
      if (found) return true;
    }
    return false;
  }

  Snapshot& state_;
  const std::uint32_t usable_;
  const std::set<PageNo> wanted_;
};

}  // namespace

Result<std::vector<std::string>> touched_tables(Snapshot& state, const std::vector<PageNo>& pages) {
  if (state.page_count() == 0) return std::vector<std::string>();
  sqlite::PageDatabase::Content content;
  content.page_size = state.page_size();
  content.page_count = state.page_count();
  content.read = [&](std::uint32_t page) { return state.page(page); };
  std::vector<std::pair<std::string, PageNo>> roots;
  {
    sqlite::PageDatabase readable(std::move(content));
    sqlite::Connection::Options options;
    options.vfs = readable.vfs();
    OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(readable.path(), options));
    OFFPRINT_TRY_ASSIGN(
        auto select,
        connection.prepare("SELECT tbl_name, rootpage FROM sqlite_schema WHERE rootpage > 0 AND "
                           "tbl_name NOT LIKE 'sqlite\\_offprint\\_%' ESCAPE '\\'"));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool found, select.step());
      if (!found) break;
      roots.emplace_back(select.column_text(0), static_cast<PageNo>(select.column_int(1)));
    }
  }
  OFFPRINT_TRY_ASSIGN(ByteView page_one, state.page(1));
  Search search(state, sqlite::usable_size(page_one), {pages.begin(), pages.end()});
  std::set<std::string> names;
  for (const auto& [name, root] : roots) {
    if (names.contains(name)) continue;
    OFFPRINT_TRY_ASSIGN(bool touched, search.is_touched(root));
    if (touched) names.insert(name);
  }
  return std::vector<std::string>(names.begin(), names.end());
}

}  // namespace offprint::database
