#include "publication/consumer_reads.h"

#include <algorithm>

#include <fmt/format.h>

#include "publication/instance.h"
#include "publication/schema_program.h"
#include "publication/schema_scratch.h"
#include "publication/source_table.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

using database::StoredConsumer;

std::string instance_script(const Plan& plan) {
  std::string text = std::string(kLabelTable) + ";\n";
  for (const ItemPlan& item : plan.items) text += item.create + ";\n";
  for (const std::string& index : plan.indexes) text += index + ";\n";
  return text;
}

// What one statement reads.
Result<> add_reads(ScratchDatabase& instance, const std::string& sql, NamedColumns& reads) {
  OFFPRINT_TRY_ASSIGN(auto compiled, instance.db().prepare(sql));
  if (sqlite3_stmt_readonly(compiled.handle()) == 0 || compiled.column_count() == 0)
    return fail(Code::kInvalid, "a consumer's queries are SELECTs: its file is written by nobody");
  OFFPRINT_TRY_ASSIGN(auto names, names_in_statement(instance, sql));
  reads.merge(names);
  // USING and NATURAL joins, of which the authorizer is not told.
  OFFPRINT_TRY_ASSIGN(auto columns, columns_of_program(instance, sql));
  for (const std::string& each : columns) {
    const std::size_t dot = each.find('.');
    reads.emplace(each.substr(0, dot), each.substr(dot + 1));
  }
  return {};
}

ReadColumns columns_read(const StoredConsumer& consumer) {
  ReadColumns reads;
  for (const auto& [table, column] : consumer.reads) {
    auto& columns = reads[folded(table)];
    if (!column.empty()) columns.insert(folded(column));
  }
  return reads;
}

int note_read(void* reads, int action, const char* table, const char* column, const char*,
              const char*) {
  if (action == SQLITE_READ && table != nullptr) {
    auto& columns = (*static_cast<ReadColumns*>(reads))[folded(table)];
    if (column != nullptr && *column != '\0') columns.insert(folded(column));
  }
  return SQLITE_OK;
}

// An item with the columns of its key and those that are read, in their order.
Result<TableItem> restricted(sqlite::Connection& source, const TableItem& item,
                             const std::set<std::string>& columns) {
  OFFPRINT_TRY_ASSIGN(SourceTable table, read_source_table(source, item.source));
  TableItem result = item;
  std::erase_if(result.columns, [&](const PublishedColumn& column) {
    const SourceColumn* plain = nullptr;
    if (auto tokens = tokenize_whole(column.expression); tokens && tokens->size() == 1)
      plain = table.find(tokens->front().name());
    const bool is_key = plain != nullptr && plain->key > 0;
    return !is_key && !columns.contains(folded(column.name));
  });
  return result;
}

}  // namespace

Result<> add_source_reads(sqlite::Connection& source, const std::string& sql, ReadColumns& reads) {
  sqlite3_set_authorizer(source.handle(), note_read, &reads);
  auto compiled = source.prepare(sql);
  sqlite3_set_authorizer(source.handle(), nullptr, nullptr);
  return compiled ? Result<>() : fail(compiled.error());
}

Result<> find_reads(const Plan& plan, StoredConsumer& consumer) {
  OFFPRINT_TRY_ASSIGN(SchemaScript script,
                      script_of_text("publication", instance_script(plan), false));
  OFFPRINT_TRY_ASSIGN(auto instance, ScratchDatabase::create(script));
  NamedColumns reads;
  for (const StoredConsumer::Query& query : consumer.queries) {
    OFFPRINT_TRY_ASSIGN(SchemaScript statements, script_of_text(query.name, query.sql));
    if (statements.statements.empty())
      return fail(Code::kInvalid, query.name + ": there is no statement");
    for (const SchemaStatement& statement : statements.statements) {
      if (auto read = add_reads(*instance, statement.sql, reads); !read)
        return fail(
            read.error().with_context(fmt::format("{}:{}", query.name, statement.place.line)));
    }
  }
  consumer.reads.clear();
  for (const auto& [table, column] : reads) {
    // A table that is read by column is not told of again.
    const auto next = reads.upper_bound({table, column});
    if (column.empty() && next != reads.end() && next->first == table) continue;
    consumer.reads.emplace_back(table, column);
  }
  return {};
}

Result<ReadColumns> source_reads(sqlite::Connection& source, const Definition& definition,
                                 const StoredConsumer& consumer) {
  OFFPRINT_TRY_ASSIGN(auto copy, copy_of_schema(source));
  const ReadColumns read = columns_read(consumer);
  ReadColumns reads;
  for (const TableItem& item : definition.tables) {
    auto asked = read.find(folded(item.name));
    if (asked == read.end()) continue;
    OFFPRINT_TRY_ASSIGN(TableItem part, restricted(copy, item, asked->second));
    const std::string from = " FROM main." + quoted_name(item.source);
    for (const PublishedColumn& column : part.columns)
      OFFPRINT_TRY(add_source_reads(copy, "SELECT " + column.expression + from, reads));
    if (!item.filter.empty())
      OFFPRINT_TRY(
          add_source_reads(copy, "SELECT 1" + from + " WHERE (" + item.filter + ")", reads));
  }
  for (const ViewItem& item : definition.views) {
    if (read.contains(folded(item.name))) OFFPRINT_TRY(add_source_reads(copy, item.select, reads));
  }
  return reads;
}

bool still_reads(sqlite::Connection& source, const Definition& definition,
                 const StoredConsumer& consumer) {
  const ReadColumns read = columns_read(consumer);
  Definition part = definition;
  part.tables.clear();
  part.indexes.clear();
  for (const TableItem& item : definition.tables) {
    auto asked = read.find(folded(item.name));
    if (asked == read.end()) continue;
    auto restricted_item = restricted(source, item, asked->second);
    if (!restricted_item) return false;
    part.tables.push_back(*std::move(restricted_item));
  }
  std::erase_if(part.views,
                [&](const ViewItem& item) { return !read.contains(folded(item.name)); });
  return make_plan(source, part).has_value();
}

}  // namespace offprint::publication
