#include "main/tailing.h"

#include <fmt/format.h>

namespace offprint {

void add_tail_settings(Settings& settings, TailOptions& options) {
  settings.add("tail", options.files,
               "NAME=PATH: database NAME follows a program's own SQLite file, read-only here; can "
               "be repeated");
  settings.add_switch("tail_set_wal", options.set_wal,
                      "turn such files into WAL mode where they are not");
}

Result<> Tailing::start(const TailOptions& options, const std::string& data, database::Store& store,
                        server::Service* service, bool has_copies) {
  if (options.files.empty()) return {};
  if (has_copies)
    return fail(Code::kInvalid, "a node that follows another one cannot follow files (--tail)");
  tail::TailerOptions tailer;
  for (const std::string& text : options.files) {
    OFFPRINT_TRY_ASSIGN(auto file, tail::parse_tailed_file(text));
    tailer.files.push_back(std::move(file));
  }
  tailer.each.directory = data + "/tail";
  tailer.each.set_wal = options.set_wal;
  OFFPRINT_TRY_ASSIGN(tailer_, tail::Tailer::create(std::move(tailer), store));
  OFFPRINT_TRY(tailer_->start());
  if (service == nullptr) return {};
  service->tails = [this] { return tailer_->status(); };
  service->tail_of = [this](const std::string& name) { return tailer_->status(name); };
  return {};
}

void Tailing::stop() {
  if (tailer_) tailer_->stop();
}

}  // namespace offprint
