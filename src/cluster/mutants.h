#pragma once

// Rules that a test build can drop, one at a time, to see whether the tests notice. Numbers:
// docs/cluster-protocol.md.
namespace offprint::cluster {

enum class Mutant {
  kNone = 0,
  kNoBootWait = 1,             // R8
  kCommitWithoutPending = 2,   // R4
  kReadBeforeRecovery = 3,     // R2
  kAcceptStaleEpoch = 4,       // R1
  kExcludeBeforeCas = 5,       // R3
  kAnyoneIsEligible = 6,       // R6
  kTruncateSameEpoch = 7,      // R10
  kLeaseOfMajority = 8,        // R11
  kNoGate = 9,                 // R7
  kCommitBeforeRecovery = 10,  // R2
  kAdoptWhilePromised = 11,    // R9
  kForgetPending = 12,         // R5
  kLeaseFromReceipt = 13,      // R12
  kActsBeforeDurable = 14,     // R13
};

#ifdef OFFPRINT_MUTANTS
inline Mutant active_mutant = Mutant::kNone;
inline bool drops(Mutant rule) { return active_mutant == rule; }
#else
constexpr bool drops(Mutant) { return false; }
#endif

}  // namespace offprint::cluster
