#include "cluster/coordinator_local.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cluster/coordinator_calls.h"
#include "cluster/coordinator_file.h"
#include "cluster/coordinator_loop.h"

namespace offprint::cluster {
namespace {

using Kind = RegisterFault::Kind;

Error stopped() { return {Code::kUnavailable, "the coordinator is stopping"}; }
Error late() { return {Code::kTimeout, "the register did not answer in time"}; }
Error unreachable() { return {Code::kUnavailable, "the register cannot be reached"}; }

class LocalCoordinator final : public Coordinator {
 public:
  LocalCoordinator(std::shared_ptr<RegisterTable> table, RegisterFaults faults)
      : table_(std::move(table)), faults_(std::move(faults)), loop_(waiter_) {}
  ~LocalCoordinator() override;

  void read(std::string key, Deadline deadline, ReadDone done) override;
  void list(std::string prefix, Deadline deadline, ListDone done) override;
  void compare_and_swap(Swap swap, Deadline deadline, SwapDone done) override;
  void watch(std::string prefix, WatchCall call) override;
  void announce(Announcement announcement, Deadline deadline, AnnounceDone done) override;

 private:
  RegisterFault fault_of(const std::string& key) {
    return faults_ ? faults_(key) : RegisterFault{};
  }
  template <class Value>
  void ask(const std::string& key, Deadline deadline, std::function<void(Result<Value>)> done,
           std::function<Result<Value>()> from);
  void start_swap(Swap swap, Deadline deadline, SwapDone done);
  void renew();

  const std::shared_ptr<RegisterTable> table_;
  const RegisterFaults faults_;
  PlainWaiter waiter_;
  // Of the loop's thread.
  OpenCalls calls_;
  bool stopping_ = false;
  std::vector<std::uint64_t> listeners_;
  std::vector<Announcement> announced_;
  int renew_ms_ = 0;
  CoordinatorLoop loop_;
};

LocalCoordinator::~LocalCoordinator() {
  loop_.stop([this] {
    stopping_ = true;
    for (std::uint64_t id : listeners_) table_->remove_listener(id);
    for (const Announcement& each : announced_) table_->forget(each.key);
    calls_.end_all();
  });
}

template <class Value>
void LocalCoordinator::ask(const std::string& key, Deadline deadline,
                           std::function<void(Result<Value>)> done,
                           std::function<Result<Value>()> from) {
  using Answer = Result<Value>;
  if (stopping_) return done(fail(stopped()));
  std::function<void(Answer)> answer =
      calls_.open<Answer>(std::move(done), [] { return Answer(fail(stopped())); });
  RegisterFault fault = fault_of(key);
  if (fault.kind == Kind::kUnreachable) return answer(fail(unreachable()));
  Deadline arrival = SteadyClock::now() + std::chrono::milliseconds(fault.delay_ms);
  if (fault.kind != Kind::kNone || arrival > deadline) {
    loop_.at(deadline, [answer] { answer(fail(late())); });
  } else if (fault.delay_ms == 0) {
    answer(from());
  } else {
    loop_.at(arrival, [answer, from = std::move(from)] { answer(from()); });
  }
}

void LocalCoordinator::read(std::string key, Deadline deadline, ReadDone done) {
  using Value = std::optional<RegisterEntry>;
  loop_.post([this, key = std::move(key), deadline, done = std::move(done)] {
    if (auto valid = check_register_key(key); !valid) return done(fail(valid.error()));
    ask<Value>(key, deadline, done, [this, key] { return table_->read(key); });
  });
}

void LocalCoordinator::list(std::string prefix, Deadline deadline, ListDone done) {
  using Value = std::vector<RegisterEntry>;
  loop_.post([this, prefix = std::move(prefix), deadline, done = std::move(done)] {
    if (auto valid = check_register_key(prefix); !valid) return done(fail(valid.error()));
    ask<Value>(prefix, deadline, done, [this, prefix] { return table_->list(prefix); });
  });
}

void LocalCoordinator::compare_and_swap(Swap swap, Deadline deadline, SwapDone done) {
  loop_.post([this, swap = std::move(swap), deadline, done = std::move(done)]() mutable {
    start_swap(std::move(swap), deadline, std::move(done));
  });
}

void LocalCoordinator::start_swap(Swap swap, Deadline deadline, SwapDone done) {
  if (stopping_) return done(SwapResult::failed(stopped()));
  if (auto valid = check_register_entry(swap.key, swap.value); !valid)
    return done(SwapResult::failed(valid.error()));
  std::function<void(SwapResult)> answer =
      calls_.open<SwapResult>(std::move(done), [] { return SwapResult::unknown(stopped()); });
  RegisterFault fault = fault_of(swap.key);
  if (fault.kind == Kind::kUnreachable) return answer(SwapResult::failed(unreachable()));
  auto arrive = [this, swap, answer, kind = fault.kind] {
    if (kind == Kind::kHeld) return table_->hold(swap);
    if (kind == Kind::kRequestLost) return;
    SwapResult result = table_->compare_and_swap(swap);
    if (kind == Kind::kNone) answer(std::move(result));
  };
  Deadline arrival = SteadyClock::now() + std::chrono::milliseconds(fault.delay_ms);
  if (fault.kind != Kind::kNone || arrival > deadline)
    loop_.at(deadline, [answer] { answer(SwapResult::unknown(late())); });
  if (fault.delay_ms == 0) return arrive();
  loop_.at(arrival, arrive);
}

void LocalCoordinator::watch(std::string prefix, WatchCall call) {
  loop_.post([this, prefix = std::move(prefix), call = std::move(call)] {
    if (stopping_) return;
    listeners_.push_back(table_->add_listener(prefix, [this, call](const RegisterHint& hint) {
      loop_.post([this, call, hint] {
        if (!stopping_) call(hint);
      });
    }));
  });
}

void LocalCoordinator::announce(Announcement announcement, Deadline /*deadline*/,
                                AnnounceDone done) {
  loop_.post([this, announcement = std::move(announcement), done = std::move(done)] {
    if (stopping_) return done(fail(stopped()));
    if (auto valid = check_register_entry(announcement.key, announcement.value); !valid)
      return done(fail(valid.error()));
    std::erase_if(announced_,
                  [&](const Announcement& each) { return each.key == announcement.key; });
    announced_.push_back(announcement);
    table_->announce(announcement.key, announcement.value);
    if (renew_ms_ == 0) {
      renew_ms_ = std::max(1, announcement.ttl_ms / 3);
      renew();
    }
    done({});
  });
}

void LocalCoordinator::renew() {
  for (const Announcement& each : announced_) table_->announce(each.key, each.value);
  loop_.at(SteadyClock::now() + std::chrono::milliseconds(renew_ms_), [this] { renew(); });
}

}  // namespace

std::unique_ptr<Coordinator> create_mem_coordinator(std::shared_ptr<RegisterTable> table,
                                                    RegisterFaults faults) {
  return std::make_unique<LocalCoordinator>(std::move(table), std::move(faults));
}

Result<std::unique_ptr<Coordinator>> create_static_coordinator(FileSystem& files,
                                                               const std::string& path) {
  std::shared_ptr<RegisterTable> table;
  if (path.empty()) {
    table = std::make_shared<RegisterTable>();
  } else {
    OFFPRINT_TRY_ASSIGN(RegisterTable::State state, load_register(files, path));
    table = std::make_shared<RegisterTable>(std::move(state),
                                            [&files, path](const RegisterTable::State& next) {
                                              return save_register(files, path, next);
                                            });
  }
  return create_mem_coordinator(std::move(table));
}

Result<> check_register_key(const std::string& key) {
  if (key.empty() || key.size() > kRegisterKeyMax)
    return fail(Code::kInvalid, "a key of the register has 1 to 512 bytes");
  return {};
}

Result<> check_register_entry(const std::string& key, const std::string& value) {
  OFFPRINT_TRY(check_register_key(key));
  if (value.size() > kRegisterValueMax)
    return fail(Code::kTooLarge, "a value of the register has at most 65536 bytes");
  return {};
}

}  // namespace offprint::cluster
