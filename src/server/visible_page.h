#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/result.h"
#include "database/name.h"
#include "server/access.h"

namespace offprint::server {

// A page of a list of what `Entry::name` names, without what the client may not manage: such names
// come neither in the list nor as the end of a page.
template <class Entry>
struct VisiblePage {
  std::vector<Entry> entries;
  bool more = false;
};

// `next_page(last, count)` answers up to `count` entries behind `last` (null: from the beginning).
template <class Entry, class NextPage>
Result<VisiblePage<Entry>> visible_page(const Access& access, std::size_t limit,
                                        NextPage next_page) {
  VisiblePage<Entry> page;
  std::vector<Entry> all;
  for (bool some = true; some && page.entries.size() <= limit;) {
    std::vector<Entry> before = std::move(all);
    OFFPRINT_TRY_ASSIGN(all, next_page(before.empty() ? nullptr : &before.back(), limit + 1));
    some = all.size() > limit;
    for (const Entry& each : all) {
      auto name = database::DatabaseName::parse(each.name);
      if (name && access.allows(*name, database::Verb::kAdmin)) page.entries.push_back(each);
    }
  }
  page.more = page.entries.size() > limit;
  if (page.more) page.entries.resize(limit);
  return page;
}

}  // namespace offprint::server
