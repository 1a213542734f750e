#include "main/guardian.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "cluster/guardian_call.h"

namespace offprint {
namespace {

constexpr std::chrono::milliseconds kTellMax{1'000};
constexpr int kSignalBase = 128;  // of exit codes, as shells have them

// What the guardian passes on, and the word that the child has ended.
sigset_t signals_of_guardian() {
  sigset_t set;
  sigemptyset(&set);
  for (int each : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCHLD}) sigaddset(&set, each);
  return set;
}

// Returns when nothing of the child is left: no thread of it, and no socket. Its status.
int wait_until_dead(pid_t child, const sigset_t& set) {
  for (;;) {
    const int signal = sigwaitinfo(&set, nullptr);
    if (signal > 0 && signal != SIGCHLD) ::kill(child, signal);
    int status = 0;
    if (::waitpid(child, &status, WNOHANG) == child) return status;
  }
}

[[noreturn]] void end_as(int status) {
  std::fflush(nullptr);
  if (WIFEXITED(status)) ::_exit(WEXITSTATUS(status));
  const int signal = WTERMSIG(status);
  const rlimit no_core{0, 0};  // the child's is the one to look at
  ::setrlimit(RLIMIT_CORE, &no_core);
  std::signal(signal, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  ::raise(signal);
  ::_exit(kSignalBase + signal);
}

[[noreturn]] void guard(pid_t child, const sigset_t& set, const cluster::GuardianPage& page,
                        cluster::DeathNotice notice) {
  ::prctl(PR_SET_NAME, "offprint-guard");
  const int status = wait_until_dead(child, set);
  if (auto words = page.read()) {
    notice.words = *std::move(words);
    const std::size_t heard = cluster::tell_of_death(notice, kTellMax);
    log::warn("guardian: the server, primary in epoch {}, has died ({} {}); {} of {} nodes know",
              notice.words.epoch.value, WIFEXITED(status) ? "exit code" : "signal",
              WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), heard,
              notice.words.peers.size());
  }
  end_as(status);
}

}  // namespace

Result<std::unique_ptr<cluster::GuardianPage>> run_guarded(const ClusterOptions& options) {
  cluster::DeathNotice notice;
  notice.cluster = options.cluster;
  notice.node = options.node;
  // Now: a file that is changed later is not what the other nodes know.
  OFFPRINT_TRY_ASSIGN(notice.secret, read_secret(options));
  OFFPRINT_TRY_ASSIGN(auto page, cluster::GuardianPage::create());
  std::signal(SIGCHLD, SIG_DFL);
  const sigset_t set = signals_of_guardian();
  sigset_t before;
  sigprocmask(SIG_BLOCK, &set, &before);
  std::fflush(nullptr);
  const pid_t guardian = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) {
    const int why = errno;
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return fail(Code::kIo, std::string("a process for the server: ") + std::strerror(why));
  }
  if (child > 0) guard(child, set, *page, std::move(notice));
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != guardian) ::_exit(kSignalBase + SIGKILL);  // it died before that counted
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return page;
}

}  // namespace offprint
