package faults

import (
	"fmt"
	"maps"
	"reflect"
)

const (
	accounts       = 8
	balanceAtFirst = 1000
	sessions       = 3
)

// checkBank: each acknowledged transfer happened once and no other one did, so every balance is known.
func checkBank(transfers []Transfer, balances map[int]int) []string {
	var faults []string
	expected := map[int]int{}
	for id := range accounts {
		expected[id] = balanceAtFirst
	}
	for i, each := range transfers {
		switch each.Outcome {
		case Unknown:
			faults = append(faults, fmt.Sprintf("transfer %d with its key never got an answer", i))
		case Done:
			expected[each.From] -= each.Amount
			expected[each.To] += each.Amount
		}
	}
	if len(faults) == 0 && !maps.Equal(expected, balances) {
		faults = append(faults, fmt.Sprintf("balances are %v, and the transfers make %v", balances, expected))
	}
	return faults
}

// checkClaims: each name has one winner, the winner knows it (or got no answer), and who was told that another one
// has it was told the truth.
func checkClaims(claims []Claim, owners map[string]string) []string {
	var faults []string
	outcomes := map[string]Claim{}
	for _, claim := range claims {
		outcomes[claim.Name+" "+claim.Owner] = claim
		owner, owned := owners[claim.Name]
		switch {
		case claim.Outcome == Done && owner != claim.Owner:
			faults = append(faults, fmt.Sprintf("%s was told to have %s, which %q has", claim.Owner, claim.Name, owner))
		case claim.Outcome == Refused && owner == claim.Owner:
			faults = append(faults, fmt.Sprintf("%s was refused %s, and has it", claim.Owner, claim.Name))
		case claim.Taken && !owned:
			faults = append(faults, fmt.Sprintf("%s was told that %s is taken, and nobody has it", claim.Owner, claim.Name))
		}
	}
	for name, owner := range owners {
		if _, known := outcomes[name+" "+owner]; !known {
			faults = append(faults, fmt.Sprintf("%s, which has %s, never asked for it", owner, name))
		}
	}
	return faults
}

// checkSessions: each acknowledged increase happened once.
func checkSessions(increases, final map[int]int) []string {
	var faults []string
	for id := range sessions {
		if increases[id] != final[id] {
			faults = append(faults, fmt.Sprintf("session %d: %d increases were acknowledged, and it is %d", id,
				increases[id], final[id]))
		}
	}
	return faults
}

// checkCopies: the nodes have the same.
func checkCopies(finals []Final) []string {
	var faults []string
	for _, each := range finals[1:] {
		plain := each
		plain.Node, plain.Span = finals[0].Node, finals[0].Span
		if !reflect.DeepEqual(plain, finals[0]) {
			faults = append(faults, fmt.Sprintf("%s and %s differ:\n%+v\n%+v", finals[0].Node, each.Node, finals[0], each))
		}
	}
	return faults
}
