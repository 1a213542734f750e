#pragma once

#include <memory>
#include <string>
#include <vector>

#include "main/settings.h"
#include "server/service.h"
#include "tail/tailer.h"

namespace offprint {

struct TailOptions {
  std::vector<std::string> files;  // NAME=PATH
  bool set_wal = false;
};

void add_tail_settings(Settings& settings, TailOptions& options);

// What follows programs' own files; nothing without any. Must not outlive the store.
class Tailing {
 public:
  // kInvalid: the options do not go together, or the node has copies.
  Result<> start(const TailOptions& options, const std::string& data, database::Store& store,
                 server::Service* service, bool has_copies);
  void stop();
  const tail::Tailer* tailer() const { return tailer_.get(); }

 private:
  std::unique_ptr<tail::Tailer> tailer_;
};

}  // namespace offprint
