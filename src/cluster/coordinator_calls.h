#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

namespace offprint::cluster {

// The calls of a coordinator that have no answer yet: each is answered once, by whoever comes
// first. Thread: one; answerers do not outlive it.
class OpenCalls {
 public:
  // A function that answers the call; only its first use counts. `at_end` makes the answer of a
  // call that is still open at end_all().
  template <class Answer>
  std::function<void(Answer)> open(std::function<void(Answer)> done,
                                   std::function<Answer()> at_end) {
    std::uint64_t id = ++next_;
    auto kept = std::make_shared<std::function<void(Answer)>>(std::move(done));
    std::function<void(Answer)> answer = [this, id, kept](Answer with) {
      if (!*kept) return;
      std::function<void(Answer)> call = std::exchange(*kept, nullptr);
      enders_.erase(id);
      call(std::move(with));
    };
    enders_[id] = [answer, at_end = std::move(at_end)] { answer(at_end()); };
    return answer;
  }
  void end_all() {
    while (!enders_.empty()) {
      std::function<void()> end = enders_.begin()->second;
      end();
    }
  }

 private:
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, std::function<void()>> enders_;
};

}  // namespace offprint::cluster
