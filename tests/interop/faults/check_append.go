package faults

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// Lists that grow, by transactions over several of them. The order of each list is that of its longest version, so who
// wrote before whom, who read whose write, and who read before it was there are known without trusting any position
// that a node tells. With the order of time (what ended before another began comes before it) that is a graph; a cycle
// in it is an execution that no serial order explains, so that none is strict serializability.

type listWriter struct{ key, value int }

type appendGraph struct {
	txns    []AppendTxn
	orders  map[int][]int
	writers map[listWriter]int
	edges   [][]int
	why     map[[2]int]string
	faults  []string
}

// checkAppends takes what clients did and what the nodes have at the end, whose lists are the orders.
func checkAppends(txns []AppendTxn, stale []StaleList, final map[int][]int) []string {
	g := &appendGraph{txns: txns, orders: final, writers: map[listWriter]int{}, why: map[[2]int]string{}}
	g.findWriters()
	g.checkElements()
	for i, txn := range txns {
		if txn.Outcome == Done {
			g.checkReads(fmt.Sprintf("transaction %d", i), txn.Steps)
		}
	}
	for _, each := range stale {
		g.checkPrefix("a read of any at "+each.Node, each.Key, each.List)
	}
	if len(g.faults) > 0 {
		return g.faults // the graph would be nonsense
	}
	g.connect()
	g.connectTime()
	for _, cycle := range g.cycles() {
		g.faults = append(g.faults, g.describe(cycle))
	}
	return g.faults
}

func (g *appendGraph) fail(format string, values ...any) {
	g.faults = append(g.faults, fmt.Sprintf(format, values...))
}

func (g *appendGraph) findWriters() {
	for i, txn := range g.txns {
		for _, step := range txn.Steps {
			if step.Append {
				g.writers[listWriter{step.Key, step.Value}] = i
			}
		}
	}
}

// checkElements: each value stands once, was written by somebody who was not refused, and none acknowledged is missing.
func (g *appendGraph) checkElements() {
	for key, order := range g.orders {
		seen := map[int]bool{}
		for _, value := range order {
			if seen[value] {
				g.fail("list %d: %d is there twice: %v", key, value, order)
			}
			seen[value] = true
			i, written := g.writers[listWriter{key, value}]
			if !written {
				g.fail("list %d: nobody wrote %d", key, value)
			} else if g.txns[i].Outcome == Refused {
				g.fail("list %d: %d is there, and was refused (transaction %d, %+v)", key, value, i, g.txns[i])
			}
		}
	}
	for i, txn := range g.txns {
		there, missing := 0, 0
		for _, step := range txn.Steps {
			if !step.Append {
				continue
			}
			if slices.Contains(g.orders[step.Key], step.Value) {
				there++
			} else {
				missing++
			}
		}
		if missing > 0 && (txn.Outcome == Done || (there > 0 && txn.Outcome == Unknown)) {
			g.fail("transaction %d (%s) lost %d of %d values: %+v", i, txn.Outcome, missing, missing+there, txn)
		}
	}
}

// checkReads: a transaction sees a version of each list, which ends with what it appended itself before.
func (g *appendGraph) checkReads(who string, steps []Micro) {
	own := map[int]int{}
	for _, step := range steps {
		if step.Append {
			own[step.Key] = step.Value
			continue
		}
		g.checkPrefix(who, step.Key, step.List)
		value, wrote := own[step.Key]
		if wrote && (len(step.List) == 0 || step.List[len(step.List)-1] != value) {
			g.fail("%s appended %d to list %d, and then read %v", who, value, step.Key, step.List)
		}
	}
}

func (g *appendGraph) checkPrefix(who string, key int, list []int) {
	order := g.orders[key]
	if len(list) > len(order) || !slices.Equal(list, order[:len(list)]) {
		g.fail("%s read of list %d what never was: %v, of %v", who, key, list, order)
	}
}

func (g *appendGraph) edge(from, to int, why string) {
	if from == to {
		return
	}
	g.edges[from] = append(g.edges[from], to)
	g.why[[2]int{from, to}] = why
}

// The nodes of the graph are the transactions, and as many moments behind them.
func (g *appendGraph) connect() {
	g.edges = make([][]int, 2*len(g.txns))
	for key, order := range g.orders {
		for at := 1; at < len(order); at++ {
			before, after := g.writers[listWriter{key, order[at-1]}], g.writers[listWriter{key, order[at]}]
			g.edge(before, after, fmt.Sprintf("list %d: %d before %d", key, order[at-1], order[at]))
		}
	}
	for i, txn := range g.txns {
		if txn.Outcome != Done {
			continue
		}
		for _, step := range txn.Steps {
			if step.Append {
				continue
			}
			order, length := g.orders[step.Key], len(step.List)
			if length > 0 {
				value := order[length-1]
				g.edge(g.writers[listWriter{step.Key, value}], i, fmt.Sprintf("list %d: read %d", step.Key, value))
			}
			if length < len(order) {
				value := order[length]
				g.edge(i, g.writers[listWriter{step.Key, value}], fmt.Sprintf("list %d: read before %d", step.Key, value))
			}
		}
	}
}

// connectTime: through a chain of moments, the returns in their order, so that there are few edges.
func (g *appendGraph) connectTime() {
	var ended []int
	for i, txn := range g.txns {
		if txn.Outcome == Done {
			ended = append(ended, i)
		}
	}
	sort.Slice(ended, func(a, b int) bool { return g.txns[ended[a]].Return < g.txns[ended[b]].Return })
	moment := func(at int) int { return len(g.txns) + at }
	for at, i := range ended {
		g.edge(i, moment(at), "ended")
		if at > 0 {
			g.edge(moment(at-1), moment(at), "time")
		}
	}
	for i, txn := range g.txns {
		if txn.Outcome == Refused {
			continue
		}
		before := sort.Search(len(ended), func(at int) bool { return g.txns[ended[at]].Return >= txn.Call })
		if before > 0 {
			g.edge(moment(before-1), i, "began later")
		}
	}
}

// cycles: strongly connected components of more than one node (Tarjan's algorithm, without recursion).
func (g *appendGraph) cycles() [][]int {
	n := len(g.edges)
	index, low, next := make([]int, n), make([]int, n), make([]int, n)
	onStack := make([]bool, n)
	var stack, calls []int
	var found [][]int
	counter := 0
	for root := range g.edges {
		if index[root] != 0 {
			continue
		}
		calls = append(calls[:0], root)
		for len(calls) > 0 {
			v := calls[len(calls)-1]
			if index[v] == 0 {
				counter++
				index[v], low[v], onStack[v] = counter, counter, true
				stack = append(stack, v)
			}
			if next[v] < len(g.edges[v]) {
				w := g.edges[v][next[v]]
				if index[w] == 0 {
					calls = append(calls, w)
					continue // comes back to this edge when w has its number
				}
				if onStack[w] {
					low[v] = min(low[v], low[w])
				}
				next[v]++
				continue
			}
			calls = calls[:len(calls)-1]
			if low[v] != index[v] {
				continue
			}
			at := slices.Index(stack, v)
			if len(stack)-at > 1 {
				found = append(found, slices.Clone(stack[at:]))
			}
			for _, w := range stack[at:] {
				onStack[w] = false
			}
			stack = stack[:at]
		}
	}
	return found
}

func (g *appendGraph) describe(cycle []int) string {
	inside := map[int]bool{}
	for _, v := range cycle {
		inside[v] = true
	}
	text := fmt.Sprintf("%d transactions and moments stand in a cycle:\n", len(cycle))
	for _, v := range cycle {
		if v < len(g.txns) {
			text += fmt.Sprintf("  %d: %+v\n", v, g.txns[v])
		}
		for _, w := range g.edges[v] {
			if inside[w] {
				text += fmt.Sprintf("    %d -> %d: %s\n", v, w, g.why[[2]int{v, w}])
			}
		}
	}
	return text
}

// listModel is porcupine's view of one list: what is read is what was appended so far.
var listModel = porcupine.Model{
	Init: func() any { return "[]" },
	Step: func(state, input, _ any) (bool, any) {
		step := input.(Micro)
		if !step.Append {
			return fmt.Sprint(step.List) == state, state
		}
		held := state.(string)
		if held == "[]" {
			return true, fmt.Sprintf("[%d]", step.Value)
		}
		return true, fmt.Sprintf("%s %d]", held[:len(held)-1], step.Value)
	},
}

// checkListsAlone holds each list by itself against porcupine, which knows nothing of the checker above. Of an unknown
// outcome that is not in the list at the end nothing is seen by anybody, so it is left out.
func checkListsAlone(txns []AppendTxn, final map[int][]int, patience time.Duration) []string {
	parts := map[int][]porcupine.Operation{}
	for _, txn := range txns {
		for _, step := range txn.Steps {
			end := txn.Return
			if txn.Outcome == Unknown {
				end = never
			}
			landed := step.Append && slices.Contains(final[step.Key], step.Value)
			if txn.Outcome == Done || (txn.Outcome == Unknown && landed) {
				op := porcupine.Operation{Input: step, Call: txn.Call, Return: end}
				parts[step.Key] = append(parts[step.Key], op)
			}
		}
	}
	var faults []string
	for key, part := range parts {
		if result := porcupine.CheckOperationsTimeout(listModel, part, patience); result != porcupine.Ok {
			faults = append(faults, fmt.Sprintf("list %d, %d operations: porcupine says %s", key, len(part), result))
		}
	}
	return faults
}
