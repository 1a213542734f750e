package faults

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const checkPatience = 20 * time.Second

func number(t *testing.T, name string, otherwise int64) int64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// settings of a run: part.sh and README.md name them.
type settings struct {
	program, etcd, folder, only string
	seed, budget                int64
}

func readSettings(t *testing.T) settings {
	if os.Getenv("OFFPRINT_FAULTS_ISOLATED") == "" {
		t.Skip("runs in namespaces of its own: tests/interop/faults/part.sh")
	}
	s := settings{program: os.Getenv("OFFPRINT_PROGRAM"), etcd: os.Getenv("OFFPRINT_ETCD"),
		only: os.Getenv("OFFPRINT_FAULTS_ONLY"), seed: number(t, "OFFPRINT_TEST_SEED", time.Now().UnixNano()%1e9),
		budget: number(t, "OFFPRINT_FAULTS_S", 100)}
	s.folder = os.Getenv("OFFPRINT_FAULTS_FOLDER")
	if s.folder == "" {
		s.folder = t.TempDir()
	}
	s.folder += "/" + t.Name()
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// chosen are cases by the seed: each of them once in random order, then again.
func (s settings) chosen(nodes int, random *rand.Rand) func() Case {
	var usable, left []Case
	for _, each := range cases {
		if nodes >= each.nodes && (!each.library || os.Getenv("OFFPRINT_FAKETIME") != "") &&
			strings.Contains(each.name, s.only) {
			usable = append(usable, each)
		}
	}
	return func() Case {
		if len(left) == 0 {
			left = append(left, usable...)
			random.Shuffle(len(left), func(a, b int) { left[a], left[b] = left[b], left[a] })
		}
		next := left[0]
		left = left[1:]
		return next
	}
}

// TestFaults breaks one cluster of three again and again, for OFFPRINT_FAULTS_S seconds and twelve cases at least.
func TestFaults(t *testing.T) { testCluster(t, 3, 12, 1) }

// TestTwoNodes and TestFiveNodes have their share of the time.
func TestTwoNodes(t *testing.T)  { testCluster(t, 2, 2, 8) }
func TestFiveNodes(t *testing.T) { testCluster(t, 5, 2, 8) }

func testCluster(t *testing.T, nodes, casesLeast int, share int64) {
	s := readSettings(t)
	fmt.Printf("faults: %d nodes, OFFPRINT_TEST_SEED=%d\n", nodes, s.seed)
	end := time.Now().Add(time.Duration(s.budget/share) * time.Second)
	logf := func(format string, values ...any) {
		fmt.Printf("faults: %8.3f s "+format+"\n", append([]any{float64(now()) / 1e9}, values...)...)
	}
	cluster, err := startCluster(nodes, s.program, s.etcd, s.folder, s.seed, logf)
	if cluster != nil {
		defer func() {
			if err := cluster.end(); err != nil {
				t.Error(err)
			}
		}()
	}
	if err != nil {
		t.Fatal(err)
	}
	next := s.chosen(nodes, cluster.random)
	for i := 0; i < casesLeast || time.Now().Before(end); i++ {
		each := next()
		t.Run(fmt.Sprintf("%d %s", i, each.name), func(t *testing.T) {
			runCase(t, cluster, each, fmt.Sprintf("case%d", i), s.seed+int64(i))
		})
		if t.Failed() {
			t.Fatalf("seed %d; logs in %s", s.seed, s.folder)
		}
	}
}

func runCase(t *testing.T, c *Cluster, each Case, database string, seed int64) {
	c.log("%s: %s", database, each.name)
	history := newHistory()
	if err := prepare(c, database); err != nil {
		t.Fatal(err)
	}
	load, err := startLoad(c.urls(), database, seed, history)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	broken := each.run(c)
	c.log("heal")
	if err := c.heal(); err != nil {
		t.Error(err)
	}
	if broken != nil {
		t.Error(broken)
	}
	began := time.Now()
	if err := progress(c, database); err != nil {
		t.Error(err)
	}
	progressed := time.Since(began)
	if err := c.settle(); err != nil {
		t.Error(err)
	}
	settled := time.Since(began)
	time.Sleep(300 * time.Millisecond)
	load.stop(progressPatience)
	check(t, c, database, history)
	for _, surprise := range c.surprises() {
		t.Error(surprise)
	}
	drop(c, database)
	c.log("progress after %.1f s, in sync after %.1f s; %s", progressed.Seconds(), settled.Seconds(), history.summary())
}

func prepare(c *Cluster, database string) error {
	client := newClient(c.urls(), database, 1)
	err := within(progressPatience, "create "+database, func() error {
		reply := client.request(0, "POST", "/v1/databases", map[string]string{"name": database}, nil)
		if reply.Status != 201 && reply.Status != 409 {
			return fmt.Errorf("status %d %s", reply.Status, reply.Message)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var statements []Statement
	for _, line := range strings.Split(schema, "\n") {
		statements = append(statements, Statement{strings.TrimSuffix(line, ";"), nil})
	}
	for id := range accounts {
		statements = append(statements, Statement{"INSERT INTO acc VALUES(?,?)", []any{id, balanceAtFirst}})
	}
	for id := range sessions {
		statements = append(statements, Statement{"INSERT INTO sess VALUES(?,0)", []any{id}})
	}
	end := time.Now().Add(progressPatience)
	reply, outcome := client.once("prepare", func() bool { return time.Now().After(end) }, statements...)
	if outcome != Done {
		return fmt.Errorf("tables of %s: %s, status %d %s", database, outcome, reply.Status, reply.Message)
	}
	return nil
}

// progress: a write through each node has an answer.
func progress(c *Cluster, database string) error {
	client := newClient(c.urls(), database, 1)
	for _, node := range c.nodes {
		err := within(progressPatience, "a write through "+node.name, func() error {
			reply := client.query(node.host-1, map[string]string{"Idempotency-Key": "progress-" + node.name},
				Statement{"UPDATE sess SET n=n WHERE id=0", nil})
			if reply.Status != 200 {
				return fmt.Errorf("status %d %s %s", reply.Status, reply.Code, reply.Message)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func drop(c *Cluster, database string) {
	c.client.request(0, "DELETE", "/v1/databases/"+database, nil, nil)
}

func check(t *testing.T, c *Cluster, database string, history *History) {
	finals, err := c.finals(database)
	if err != nil {
		t.Error(err)
		return
	}
	for _, fault := range findFaults(history, finals) {
		t.Error(fault)
	}
	if err := c.snapshots(database); err != nil {
		t.Error(err)
	}
	for _, what := range []string{"register", "append", "interactive", "transfer", "claim", "increase", "session read"} {
		if history.Counts[what+" done"] < 3 {
			t.Errorf("the load did not work: %s", history.summary())
			return
		}
	}
}

// findFaults holds a history, and what the nodes have at its end, against every checker.
func findFaults(h *History, finals []Final) []string {
	registers := h.Registers
	keys := map[int]bool{}
	for _, op := range registers {
		keys[op.Key] = true
	}
	for _, final := range finals {
		for key := range keys {
			registers = append(registers, RegisterOp{Span: final.Span, Key: key, Kind: Read, Value: final.Register[key]})
		}
	}
	faults := h.Faults
	faults = append(faults, checkCopies(finals)...)
	faults = append(faults, checkRegisters(registers, checkPatience)...)
	faults = append(faults, checkAppends(h.Appends, h.Stale, finals[0].Lists)...)
	faults = append(faults, checkListsAlone(h.Appends, finals[0].Lists, checkPatience)...)
	faults = append(faults, checkBank(h.Transfers, finals[0].Balances)...)
	faults = append(faults, checkClaims(h.Claims, finals[0].Owners)...)
	return append(faults, checkSessions(h.Increases, finals[0].Sessions)...)
}
