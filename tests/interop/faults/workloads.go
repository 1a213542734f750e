package faults

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const schema = `CREATE TABLE reg(k INTEGER PRIMARY KEY, v INTEGER);
CREATE TABLE lists(id INTEGER PRIMARY KEY, k INTEGER, v INTEGER);
CREATE TABLE acc(id INTEGER PRIMARY KEY, balance INTEGER);
CREATE TABLE names(name TEXT PRIMARY KEY, owner TEXT);
CREATE TABLE sess(id INTEGER PRIMARY KEY, n INTEGER);`

// Load is the clients of one case. They work until stop, and then settle what they began with a key.
type Load struct {
	nodes    []string
	database string
	seed     int64
	history  *History
	stopping atomic.Bool
	until    atomic.Int64 // when requests with a key are given up, after stop
	group    sync.WaitGroup
	values   atomic.Int64 // each is given once
	registry keys
	lists    keys
	claims   atomic.Int64
	fresh    sync.Mutex
	marks    [sessions]string // newest bookmark of each session
	counts   [sessions]int    // and the count that belongs to it
}

// keys are used for some operations each, so that histories of one key stay short enough to be checked.
type keys struct {
	mutex sync.Mutex
	first int
	uses  int
}

const keysAtOnce, usesOfKeys = 3, 180

func (k *keys) draw(random *rand.Rand) int {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.uses++; k.uses > usesOfKeys {
		k.first, k.uses = k.first+keysAtOnce, 0
	}
	return k.first + random.Intn(keysAtOnce)
}

// look draws a key that may be read as often as one likes.
func (k *keys) look(random *rand.Rand) int {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.first + random.Intn(keysAtOnce)
}

// retire: too much about the present keys is unknown.
func (k *keys) retire() {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.uses += usesOfKeys / 6
}

func startLoad(nodes []string, database string, seed int64, history *History) (*Load, error) {
	l := &Load{nodes: nodes, database: database, seed: seed, history: history}
	var workers []func(*Client)
	for range 3 {
		workers = append(workers, l.registerWorker)
	}
	for node := range nodes {
		workers = append(workers, func(c *Client) { l.registerReader(c, node) },
			func(c *Client) { l.listReader(c, node) })
	}
	workers = append(workers, l.appendWorker, l.appendWorker, l.interactiveWorker, l.bankWorker, l.bankWorker,
		l.bankReader, l.staleReader)
	for i := range 3 {
		workers = append(workers, func(c *Client) { l.claimWorker(c, fmt.Sprintf("w%d", i), i == 0) })
	}
	for id := range sessions {
		workers = append(workers, func(c *Client) { l.sessionWorker(c, id) })
	}
	for i, worker := range workers {
		l.group.Add(1)
		go func() {
			defer l.group.Done()
			worker(newClient(nodes, database, seed*1000+int64(i)))
		}()
	}
	return l, nil
}

// stop lets the clients settle for some time.
func (l *Load) stop(patience time.Duration) {
	l.until.Store(now() + int64(patience))
	l.stopping.Store(true)
	l.group.Wait()
}

func (l *Load) givenUp() bool { return l.stopping.Load() && now() > l.until.Load() }

func (l *Load) value() int { return int(l.values.Add(1)) }

func pace(c *Client) { time.Sleep(time.Duration(2+c.random.Intn(14)) * time.Millisecond) }

// Registers, through the stock client, whose reads are the primary's: linearizable.
func (l *Load) registerWorker(c *Client) {
	stock, err := openStock(l.nodes, l.database)
	if err != nil {
		l.history.fault("%v", err)
		return
	}
	seen := map[int]int{}
	for !l.stopping.Load() {
		op := RegisterOp{Key: l.registry.draw(c.random), Kind: RegisterKind(c.random.Intn(3))}
		if op.Kind != Read {
			op.Value, op.Expected = l.value(), seen[op.Key]
		}
		node := c.anyNode()
		op.Call = now()
		err := doRegister(stock[node], &op)
		op.Return = now()
		c.took(node, op.Call)
		op.Outcome = stockOutcome(err)
		if op.Outcome == Unknown && op.Kind != Read {
			l.registry.retire()
		}
		if op.Outcome == Done && (op.Kind != Swap || op.Swapped) {
			seen[op.Key] = op.Value
		}
		l.history.count("register", op.Outcome)
		l.history.add(func() { l.history.Registers = append(l.history.Registers, op) })
		pace(c)
	}
}

// Each node has readers of its own, who stay with it whatever happens to it: an old primary would answer them.
func (l *Load) registerReader(c *Client, node int) {
	stock, err := openStock(l.nodes[node:node+1], l.database)
	if err != nil {
		l.history.fault("%v", err)
		return
	}
	for !l.stopping.Load() {
		op := RegisterOp{Key: l.registry.look(c.random), Kind: Read}
		op.Call = now()
		op.Outcome = stockOutcome(doRegister(stock[0], &op))
		op.Return = now()
		l.history.count("register read", op.Outcome)
		l.history.add(func() { l.history.Registers = append(l.history.Registers, op) })
		pace(c)
	}
}

func (l *Load) listReader(c *Client, node int) {
	for !l.stopping.Load() {
		first, second := l.lists.look(c.random), l.lists.look(c.random)
		txn := AppendTxn{Steps: []Micro{{Key: first}, {Key: second}}}
		txn.Call = now()
		reply := c.query(node, map[string]string{"Offprint-Read": "primary"}, Statement{selectList, []any{first}},
			Statement{selectList, []any{second}})
		txn.Return, txn.Outcome = now(), reply.outcome()
		l.history.count("list read", txn.Outcome)
		if txn.Outcome == Done {
			txn.Steps[0].List, txn.Steps[1].List = integers(reply.Results[0].Rows), integers(reply.Results[1].Rows)
			l.history.add(func() { l.history.Appends = append(l.history.Appends, txn) })
		}
		pace(c)
	}
}

func doRegister(db *sql.DB, op *RegisterOp) error {
	ctx, cancel := deadline()
	defer cancel()
	switch op.Kind {
	case Read:
		err := db.QueryRowContext(ctx, "SELECT v FROM reg WHERE k=?", op.Key).Scan(&op.Value)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	case Write:
		_, err := db.ExecContext(ctx, "INSERT INTO reg VALUES(?,?) ON CONFLICT(k) DO UPDATE SET v=excluded.v", op.Key,
			op.Value)
		return err
	}
	if op.Expected == 0 {
		result, err := db.ExecContext(ctx, "INSERT INTO reg VALUES(?,?) ON CONFLICT(k) DO NOTHING", op.Key, op.Value)
		return swapped(op, result, err)
	}
	result, err := db.ExecContext(ctx, "UPDATE reg SET v=? WHERE k=? AND v=?", op.Value, op.Key, op.Expected)
	return swapped(op, result, err)
}

func swapped(op *RegisterOp, result sql.Result, err error) error {
	if err != nil {
		return err
	}
	changed, err := result.RowsAffected()
	op.Swapped = changed == 1
	return err
}

func (l *Load) drawSteps(c *Client) []Micro {
	steps := make([]Micro, 1+c.random.Intn(3))
	for i := range steps {
		steps[i] = Micro{Key: l.lists.draw(c.random), Append: c.random.Intn(2) == 0}
		if steps[i].Append {
			steps[i].Value = l.value()
		}
	}
	return steps
}

const selectList = "SELECT v FROM lists WHERE k=? ORDER BY id"
const insertList = "INSERT INTO lists(k, v) VALUES(?,?)"

func (l *Load) record(txn AppendTxn, what string) {
	if txn.Outcome == Unknown {
		l.lists.retire()
	}
	l.history.count(what, txn.Outcome)
	l.history.add(func() { l.history.Appends = append(l.history.Appends, txn) })
}

// Transactions on several lists without a key: what is refused must never be seen.
func (l *Load) appendWorker(c *Client) {
	for !l.stopping.Load() {
		txn := AppendTxn{Steps: l.drawSteps(c)}
		var statements []Statement
		for _, step := range txn.Steps {
			if step.Append {
				statements = append(statements, Statement{insertList, []any{step.Key, step.Value}})
			} else {
				statements = append(statements, Statement{selectList, []any{step.Key}})
			}
		}
		node := c.anyNode()
		txn.Call = now()
		reply := c.query(node, nil, statements...)
		txn.Return, txn.Outcome = now(), reply.outcome()
		c.took(node, txn.Call)
		if txn.Outcome == Done {
			for i := range txn.Steps {
				if !txn.Steps[i].Append {
					txn.Steps[i].List = integers(reply.Results[i].Rows)
				}
			}
		}
		l.record(txn, "append")
		pace(c)
	}
}

// The same as interactive transactions of the stock client. One whose COMMIT was never sent did not happen.
func (l *Load) interactiveWorker(c *Client) {
	stock, err := openStock(l.nodes, l.database)
	if err != nil {
		l.history.fault("%v", err)
		return
	}
	for !l.stopping.Load() {
		txn := AppendTxn{Steps: l.drawSteps(c), Outcome: Refused}
		node := c.anyNode()
		txn.Call = now()
		interact(stock[node], &txn)
		txn.Return = now()
		c.took(node, txn.Call)
		l.record(txn, "interactive")
		time.Sleep(50 * time.Millisecond)
	}
}

// interact leaves the outcome as it is (refused) until COMMIT is sent.
func interact(db *sql.DB, txn *AppendTxn) error {
	ctx, cancel := deadline()
	defer cancel()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for i := range txn.Steps {
		step := &txn.Steps[i]
		if step.Append {
			_, err = tx.ExecContext(ctx, insertList, step.Key, step.Value)
		} else {
			step.List, err = readList(tx, step.Key)
		}
		if err != nil {
			tx.Rollback()
			return err
		}
	}
	err = tx.Commit()
	txn.Outcome = stockOutcome(err)
	return err
}

func readList(tx *sql.Tx, key int) ([]int, error) {
	ctx, cancel := deadline()
	defer cancel()
	rows, err := tx.QueryContext(ctx, selectList, key)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []int{}
	for rows.Next() {
		var value int
		if err := rows.Scan(&value); err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, rows.Err()
}

// Transfers with a key, each sent until it has an answer, to whichever node; some that have one are sent again.
func (l *Load) bankWorker(c *Client) {
	for !l.stopping.Load() {
		t := Transfer{From: c.random.Intn(accounts), To: c.random.Intn(accounts), Amount: 1 + c.random.Intn(50)}
		move := "UPDATE acc SET balance=balance+? WHERE id=?"
		statements := []Statement{{move, []any{-t.Amount, t.From}}, {move, []any{t.Amount, t.To}}}
		key := fmt.Sprintf("bank-%d", l.value())
		reply, outcome := c.once(key, l.givenUp, statements...)
		t.Outcome = outcome
		l.history.count("transfer", outcome)
		l.history.add(func() { l.history.Transfers = append(l.history.Transfers, t) })
		if outcome == Done && c.random.Intn(5) == 0 {
			again := c.query(c.anyNode(), map[string]string{"Idempotency-Key": key}, statements...)
			if again.Status == 200 && string(again.Body) != string(reply.Body) {
				l.history.fault("transfer %s was answered %s, and then %s", key, reply.Body, again.Body)
			}
		}
		pace(c)
	}
}

// The sum is the same in every state that anybody may see.
func (l *Load) bankReader(c *Client) {
	for !l.stopping.Load() {
		node := c.anyNode()
		mode := []string{"primary", "any"}[c.random.Intn(2)]
		reply := c.query(node, map[string]string{"Offprint-Read": mode}, Statement{"SELECT sum(balance) FROM acc", nil})
		l.history.count("sum", reply.outcome())
		if reply.Status == 200 && integer(reply.Results[0].Rows[0][0]) != accounts*balanceAtFirst {
			l.history.fault("the sum of all accounts was %v, read of %s at node %d", reply.Results[0].Rows, mode, node+1)
		}
		pace(c)
	}
}

// Reads of any node show what was committed, if not the newest.
func (l *Load) staleReader(c *Client) {
	for !l.stopping.Load() {
		node, key := c.anyNode(), l.lists.look(c.random)
		reply := c.query(node, map[string]string{"Offprint-Read": "any"}, Statement{selectList, []any{key}})
		l.history.count("stale read", reply.outcome())
		if reply.Status == 200 {
			list := StaleList{fmt.Sprintf("n%d", node+1), key, integers(reply.Results[0].Rows)}
			l.history.add(func() { l.history.Stale = append(l.history.Stale, list) })
		}
		pace(c)
	}
}

// Several ask for the same names; the first of them through the stock client, which has no keys.
func (l *Load) claimWorker(c *Client, owner string, stockClient bool) {
	stock, err := openStock(l.nodes, l.database)
	if err != nil {
		l.history.fault("%v", err)
		return
	}
	for !l.stopping.Load() {
		// All ask for the name of this twentieth of a second, once.
		slot := now() / int64(50*time.Millisecond)
		claim := Claim{Name: "name-" + strconv.FormatInt(slot, 10), Owner: owner}
		insert := Statement{"INSERT INTO names VALUES(?,?)", []any{claim.Name, claim.Owner}}
		if stockClient {
			ctx, cancel := deadline()
			_, err := stock[c.anyNode()].ExecContext(ctx, insert.SQL, insert.Args...)
			cancel()
			claim.Outcome, claim.Taken = stockOutcome(err), takenAlready(err)
		} else {
			reply, outcome := c.once("claim-"+claim.Name+owner, l.givenUp, insert)
			claim.Outcome = outcome
			claim.Taken = outcome == Refused && strings.HasPrefix(reply.Code, "SQLITE_CONSTRAINT")
		}
		l.history.count("claim", claim.Outcome)
		l.history.add(func() { l.history.Claims = append(l.history.Claims, claim) })
		for !l.stopping.Load() && now()/int64(50*time.Millisecond) == slot {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// A session increases its number and reads it, and those of others, at any node: it sees its writes, and no number
// ever goes back.
func (l *Load) sessionWorker(c *Client, id int) {
	update := Statement{"UPDATE sess SET n=n+1 WHERE id=? RETURNING n", []any{id}}
	for !l.stopping.Load() {
		reply, outcome := c.once(fmt.Sprintf("session-%d", l.value()), l.givenUp, update)
		l.history.count("increase", outcome)
		if outcome == Unknown {
			l.history.fault("an increase of session %d with its key never got an answer: %s", id, reply.Message)
		}
		if outcome == Done {
			l.history.add(func() { l.history.Increases[id]++ })
			l.sessionSaw(id, reply)
		}
		for range 3 {
			l.sessionRead(c, c.random.Intn(sessions))
		}
		pace(c)
	}
}

func (l *Load) sessionSaw(id int, reply *Reply) {
	l.fresh.Lock()
	defer l.fresh.Unlock()
	n := integer(reply.Results[0].Rows[0][0])
	if reply.Bookmark > l.marks[id] {
		l.marks[id], l.counts[id] = reply.Bookmark, max(n, l.counts[id])
	}
}

func (l *Load) sessionRead(c *Client, id int) {
	l.fresh.Lock()
	mark, count := l.marks[id], l.counts[id]
	l.fresh.Unlock()
	if mark == "" {
		return
	}
	node := c.anyNode()
	reply := c.query(node, map[string]string{"Offprint-Bookmark": mark}, Statement{"SELECT n FROM sess WHERE id=?",
		[]any{id}})
	l.history.count("session read", reply.outcome())
	if reply.Status != 200 {
		return
	}
	if n := integer(reply.Results[0].Rows[0][0]); n < count {
		l.history.fault("session %d read %d at n%d (served by %s, bookmark %s), after %d at %s", id, n, node+1,
			reply.ServedBy, reply.Bookmark, count, mark)
	}
	if reply.Bookmark < mark {
		l.history.fault("session %d asked n%d for %s and got %s", id, node+1, mark, reply.Bookmark)
	}
	l.sessionSaw(id, reply)
}
