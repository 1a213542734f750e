// Package faults runs a cluster of real processes in network namespaces, breaks it, and holds what its clients were
// told against what a linearizable database could have told them. See README.md beside this file.
package faults

import (
	"fmt"
	"math"
	"sort"
	"sync"
	"time"
)

// Outcome of an operation, as its client knows it.
type Outcome int

const (
	Done    Outcome = iota // it happened, once, between call and return
	Refused                // it did not happen and never will
	Unknown                // it may have happened, or may still, once
)

func (o Outcome) String() string { return [...]string{"done", "refused", "unknown"}[o] }

// Span is when an operation was called and when its answer was there, in nanoseconds of one clock.
type Span struct{ Call, Return int64 }

// Of what has no answer nobody knows when it happens.
const never = math.MaxInt64

var beginning = time.Now()

func now() int64 { return int64(time.Since(beginning)) }

type RegisterKind int

const (
	Read RegisterKind = iota
	Write
	Swap // Value when the register held Expected
)

// RegisterOp is one operation on one register. An absent register holds 0.
type RegisterOp struct {
	Span
	Key, Value, Expected int
	Kind                 RegisterKind
	Outcome              Outcome
	Swapped              bool // of a Swap that is Done
}

// Micro is one step of a transaction on lists: it appends Value, or has read List.
type Micro struct {
	Key, Value int
	List       []int
	Append     bool
}

// AppendTxn is a transaction on lists. Of one that is not Done the reads say nothing.
type AppendTxn struct {
	Span
	Steps   []Micro
	Outcome Outcome
}

// StaleList is what a read of any node showed: some committed state.
type StaleList struct {
	Node string
	Key  int
	List []int
}

// Transfer moves Amount between accounts.
type Transfer struct {
	From, To, Amount int
	Outcome          Outcome
}

// Claim is one worker's attempt to be the one who has Name.
type Claim struct {
	Name, Owner string
	Outcome     Outcome // Refused: another one has it already, or nothing happened
	Taken       bool    // Refused because another one has it
}

// History is all that the clients of one case did and saw.
type History struct {
	mutex     sync.Mutex
	Registers []RegisterOp
	Appends   []AppendTxn
	Stale     []StaleList
	Transfers []Transfer
	Claims    []Claim
	Increases map[int]int // of a session: how many were acknowledged
	Faults    []string    // what a client saw at once that cannot be
	Counts    map[string]int
}

func newHistory() *History {
	return &History{Increases: map[int]int{}, Counts: map[string]int{}}
}

// add runs change alone.
func (h *History) add(change func()) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	change()
}

func (h *History) count(what string, outcome Outcome) {
	h.add(func() { h.Counts[what+" "+outcome.String()]++ })
}

func (h *History) fault(format string, values ...any) {
	text := fmt.Sprintf(format, values...)
	h.add(func() { h.Faults = append(h.Faults, text) })
}

func (h *History) summary() string {
	var names []string
	for name := range h.Counts {
		names = append(names, name)
	}
	sort.Strings(names)
	text := ""
	for i, name := range names {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d %s", h.Counts[name], name)
	}
	return text
}

// Final is what one node has when all is over.
type Final struct {
	Node     string
	Span     Span
	Register map[int]int
	Lists    map[int][]int
	Balances map[int]int
	Owners   map[string]string
	Sessions map[int]int
}
