package faults

import (
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"
)

// The checkers must see what is wrong: each test here is a history with one error in it, and the same without.

func expectFaults(t *testing.T, faults []string, wanted string) {
	t.Helper()
	text := strings.Join(faults, "\n")
	if wanted == "" && len(faults) > 0 {
		t.Fatalf("a right history was refused: %s", text)
	}
	if wanted != "" && !strings.Contains(text, wanted) {
		t.Fatalf("%q was not found: %s", wanted, text)
	}
}

func at(call, end int64) Span { return Span{call, end} }

func registers(ops ...RegisterOp) []string { return checkRegisters(ops, time.Second) }

func TestRegisterHistories(t *testing.T) {
	write := RegisterOp{Span: at(0, 1), Kind: Write, Value: 1}
	second := RegisterOp{Span: at(2, 3), Kind: Write, Value: 2}
	read := func(call, end int64, value int) RegisterOp {
		return RegisterOp{Span: at(call, end), Kind: Read, Value: value}
	}
	swap := func(expected, value int, swapped bool) RegisterOp {
		return RegisterOp{Span: at(4, 5), Kind: Swap, Expected: expected, Value: value, Swapped: swapped}
	}
	unknown := second
	unknown.Outcome = Unknown
	refused := second
	refused.Outcome = Refused
	const no = "not linearizable"
	for _, each := range []struct {
		name, wanted string
		ops          []RegisterOp
	}{
		{"right", "", []RegisterOp{write, second, read(4, 5, 2)}},
		{"lost write", no, []RegisterOp{write, read(2, 3, 0)}},
		{"stale read", no, []RegisterOp{write, second, read(4, 5, 1)}},
		{"overlapping, either way", "", []RegisterOp{write, second, read(2, 5, 1)}},
		{"back in time", no, []RegisterOp{write, unknown, read(4, 5, 2), read(6, 7, 1)}},
		{"invented", no, []RegisterOp{write, read(2, 3, 7)}},
		{"unknown, happened", "", []RegisterOp{write, unknown, read(4, 5, 2)}},
		{"unknown, did not happen", "", []RegisterOp{write, unknown, read(4, 5, 1), read(6, 7, 1)}},
		{"unknown, happened late", "", []RegisterOp{write, unknown, read(4, 5, 1), read(6, 7, 2)}},
		{"refused, and happened", no, []RegisterOp{write, refused, read(4, 5, 2)}},
		{"two swaps from one value", no, []RegisterOp{write, swap(1, 2, true), swap(1, 3, true)}},
		{"one of two swaps", "", []RegisterOp{write, swap(1, 2, true), swap(1, 3, false)}},
		{"a swap that missed nothing", no, []RegisterOp{write, swap(1, 2, false)}},
	} {
		t.Run(each.name, func(t *testing.T) { expectFaults(t, registers(each.ops...), each.wanted) })
	}
}

func appended(call, end int64, outcome Outcome, steps ...Micro) AppendTxn {
	return AppendTxn{Span: at(call, end), Outcome: outcome, Steps: steps}
}

func put(key, value int) Micro           { return Micro{Key: key, Value: value, Append: true} }
func saw(key int, list ...int) Micro     { return Micro{Key: key, List: list} }
func lists(one, two []int) map[int][]int { return map[int][]int{1: one, 2: two} }

func TestAppendHistories(t *testing.T) {
	one, two := appended(0, 1, Done, put(1, 1)), appended(2, 3, Done, put(2, 2))
	const cycle = "stand in a cycle"
	for _, each := range []struct {
		name, wanted string
		txns         []AppendTxn
		final        map[int][]int
	}{
		{"right", "", []AppendTxn{one, two, appended(4, 5, Done, saw(1, 1), saw(2, 2))}, lists([]int{1}, []int{2})},
		{"lost write", "lost 1 of 1", []AppendTxn{one, two}, lists([]int{1}, nil)},
		{"doubled write", "there twice", []AppendTxn{one, two}, lists([]int{1, 1}, []int{2})},
		{"invented write", "nobody wrote", []AppendTxn{one}, lists([]int{1, 9}, nil)},
		{"refused write", "was refused", []AppendTxn{appended(0, 1, Refused, put(1, 1))}, lists([]int{1}, nil)},
		{"torn transaction", "lost 1 of 2", []AppendTxn{appended(0, 1, Unknown, put(1, 1), put(2, 2))},
			lists([]int{1}, nil)},
		{"unknown writes", "", []AppendTxn{appended(0, 1, Unknown, put(1, 1)), appended(0, 1, Unknown, put(2, 2))},
			lists([]int{1}, nil)},
		{"stale read", cycle, []AppendTxn{one, appended(4, 5, Done, saw(1))}, lists([]int{1}, nil)},
		{"read of what was undone", "what never was", []AppendTxn{one, appended(0, 5, Done, saw(1, 1, 7))},
			lists([]int{1}, nil)},
		{"own write not seen", "and then read", []AppendTxn{appended(0, 1, Done, put(1, 1), saw(1))},
			lists([]int{1}, nil)},
		{"order against time", cycle, []AppendTxn{one, appended(2, 3, Done, put(1, 2))}, lists([]int{2, 1}, nil)},
		{"write skew", cycle, []AppendTxn{appended(0, 9, Done, saw(1), put(2, 2)), appended(0, 9, Done, saw(2), put(1, 1))},
			lists([]int{1}, []int{2})},
		{"long fork", cycle, []AppendTxn{appended(0, 9, Done, put(1, 1)), appended(0, 9, Done, put(2, 2)),
			appended(0, 9, Done, saw(1, 1), saw(2)), appended(0, 9, Done, saw(1), saw(2, 2))},
			lists([]int{1}, []int{2})},
		{"read skew", cycle, []AppendTxn{appended(0, 9, Done, put(1, 1), put(2, 2)), appended(0, 9, Done, saw(1, 1), saw(2))},
			lists([]int{1}, []int{2})},
	} {
		t.Run(each.name, func(t *testing.T) { expectFaults(t, checkAppends(each.txns, nil, each.final), each.wanted) })
	}
	undone := []StaleList{{Node: "n2", Key: 1, List: []int{1, 7}}}
	expectFaults(t, checkAppends([]AppendTxn{one}, undone, lists([]int{1}, nil)), "read of any at n2")
	stale := []AppendTxn{one, appended(4, 5, Done, saw(1))}
	expectFaults(t, checkListsAlone(stale, lists([]int{1}, nil), time.Second), "porcupine says Illegal")
	expectFaults(t, checkListsAlone(stale[:1], lists([]int{1}, nil), time.Second), "")
}

// A long history that was made by a serial execution is right, and wrong once one of its reads is made older.
func TestLongAppendHistory(t *testing.T) {
	random := rand.New(rand.NewSource(7))
	held := map[int][]int{}
	var txns []AppendTxn
	var reads []int
	for i := range 5000 {
		txn := appended(int64(10*i)-random.Int63n(40), int64(10*i)+random.Int63n(40)+1, Done)
		for range 1 + random.Intn(3) {
			key := random.Intn(5)
			if random.Intn(2) == 0 {
				txn.Steps = append(txn.Steps, put(key, i*10+len(txn.Steps)))
				held[key] = append(held[key], i*10+len(txn.Steps)-1)
			} else {
				txn.Steps = append(txn.Steps, saw(key, slices.Clone(held[key])...))
			}
		}
		if !txn.Steps[0].Append && len(txn.Steps[0].List) > 40 {
			reads = append(reads, i)
		}
		txns = append(txns, txn)
	}
	expectFaults(t, checkAppends(txns, nil, held), "")
	step := &txns[reads[len(reads)/2]].Steps[0]
	step.List = step.List[:len(step.List)-30]
	expectFaults(t, checkAppends(txns, nil, held), "stand in a cycle")
}

func TestBankHistories(t *testing.T) {
	transfers := []Transfer{{From: 0, To: 1, Amount: 5}, {From: 2, To: 3, Amount: 9, Outcome: Refused}}
	balances := func(first, second int) map[int]int {
		all := map[int]int{0: first, 1: second}
		for id := 2; id < accounts; id++ {
			all[id] = balanceAtFirst
		}
		return all
	}
	expectFaults(t, checkBank(transfers, balances(995, 1005)), "")
	expectFaults(t, checkBank(transfers, balances(1000, 1000)), "balances are")
	expectFaults(t, checkBank(transfers, balances(990, 1010)), "balances are")
	expectFaults(t, checkBank([]Transfer{{Outcome: Unknown}}, balances(1000, 1000)), "never got an answer")
}

func TestClaimHistories(t *testing.T) {
	won, lost := Claim{Name: "a", Owner: "x"}, Claim{Name: "a", Owner: "y", Outcome: Refused, Taken: true}
	both := Claim{Name: "a", Owner: "y"}
	expectFaults(t, checkClaims([]Claim{won, lost}, map[string]string{"a": "x"}), "")
	expectFaults(t, checkClaims([]Claim{won, both}, map[string]string{"a": "x"}), "y was told to have a")
	expectFaults(t, checkClaims([]Claim{won}, map[string]string{}), "x was told to have a")
	expectFaults(t, checkClaims([]Claim{lost}, map[string]string{}), "nobody has it")
	expectFaults(t, checkClaims([]Claim{lost}, map[string]string{"a": "y"}), "was refused a")
	expectFaults(t, checkClaims(nil, map[string]string{"a": "z"}), "never asked")
	unknown := Claim{Name: "a", Owner: "x", Outcome: Unknown}
	expectFaults(t, checkClaims([]Claim{unknown, lost}, map[string]string{"a": "x"}), "")
	expectFaults(t, checkClaims([]Claim{unknown}, map[string]string{}), "")
}

func TestSessionHistoriesAndCopies(t *testing.T) {
	three := map[int]int{0: 3, 1: 0, 2: 0}
	expectFaults(t, checkSessions(map[int]int{0: 3}, three), "")
	expectFaults(t, checkSessions(map[int]int{0: 2}, three), "session 0")
	same := Final{Node: "n1", Register: three}
	other := Final{Node: "n2", Register: map[int]int{0: 3, 1: 0, 2: 0}, Span: at(1, 2)}
	expectFaults(t, checkCopies([]Final{same, other}), "")
	other.Register[1] = 4
	expectFaults(t, checkCopies([]Final{same, other}), "n1 and n2 differ")
}
