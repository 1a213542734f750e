#pragma once

#include "base/bytes.h"
#include "feed/transaction.h"

// Changes in the format of SQLite's session extension, as sqlite3changeset_apply() takes them
// (sqlite.org/session.html; the format stands in SQLite's ext/session/sqlite3session.c).
namespace offprint::feed {

// Whether the format can tell of a table: it has a primary key, and looks the same before and
// after.
bool has_changeset(const TableChanges& changes);
// A row of a table; the table's head goes before the first one, when `has_head` becomes true.
// Nothing for a row whose key has a NULL, and when generated columns alone differ.
void append_changeset_row(Bytes& to, const TableShape& shape, const RowChange& change,
                          bool& has_head);
// All of a transaction's tables that the format can tell of.
Bytes changeset_of(const Transaction& transaction);

}  // namespace offprint::feed
