package faults

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"math/rand"
	"net"
	"net/http"
	"strings"
	"time"

	_ "github.com/tursodatabase/libsql-client-go/libsql"
)

// Longer than --request-timeout-ms, so that nodes answer for themselves where they can.
const clientPatience = 3 * time.Second

// Who waited that long for a node takes others for a while, as people's programs do.
const avoidedFor = 2 * time.Second

func init() {
	// The stock client uses it, also for a rollback, to which it gives no deadline.
	http.DefaultTransport.(*http.Transport).ResponseHeaderTimeout = clientPatience
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 8
}

// Client speaks plain HTTP to the nodes of a cluster, as any program would.
type Client struct {
	http     *http.Client
	nodes    []string // URLs
	database string
	random   *rand.Rand
	avoided  map[int]time.Time
}

func newClient(nodes []string, database string, seed int64) *Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 2, ResponseHeaderTimeout: clientPatience}
	return &Client{http: &http.Client{Transport: transport, Timeout: clientPatience}, nodes: nodes, database: database,
		random: rand.New(rand.NewSource(seed)), avoided: map[int]time.Time{}}
}

// Reply is an answer, or that there was none (status 0).
type Reply struct {
	Status   int
	Unsent   bool // nobody was there to take it
	Code     string
	Message  string
	Bookmark string
	ServedBy string
	Body     []byte
	Results  []struct {
		Rows    [][]any `json:"rows"`
		Changes int     `json:"changes"`
	}
}

// outcome as docs/errors.md promises it: any code but these means that nothing of the request happened.
func (r *Reply) outcome() Outcome {
	switch {
	case r.Status == http.StatusOK:
		return Done
	case r.Unsent:
		return Refused
	case r.Status == 0, r.Code == "", r.Code == "UNKNOWN", r.Code == "IO", r.Code == "CORRUPT", r.Code == "INTERNAL":
		return Unknown
	}
	return Refused
}

// final: SQLite or the server decided about the request itself, so that another try would end alike.
func (r *Reply) final() bool {
	return r.Status == http.StatusOK || (r.outcome() == Refused && !r.Unsent && r.Status < 500)
}

type Statement struct {
	SQL  string `json:"sql"`
	Args []any  `json:"args,omitempty"`
}

func (c *Client) request(node int, method, path string, body any, headers map[string]string) *Reply {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, c.nodes[node]+path, reader)
	if err != nil {
		panic(err)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	reply := &Reply{}
	answer, err := c.http.Do(request)
	if err != nil {
		reply.Message, reply.Unsent = err.Error(), unsent(err)
		return reply
	}
	defer answer.Body.Close()
	if reply.Body, err = io.ReadAll(answer.Body); err != nil {
		reply.Message = err.Error()
		return reply
	}
	reply.Status = answer.StatusCode
	reply.Bookmark = answer.Header.Get("Offprint-Bookmark")
	reply.ServedBy = answer.Header.Get("Offprint-Served-By")
	var parsed struct {
		Results json.RawMessage `json:"results"`
		Error   struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(reply.Body, &parsed) == nil {
		reply.Code, reply.Message = parsed.Error.Code, parsed.Error.Message
		if parsed.Results != nil {
			_ = json.Unmarshal(parsed.Results, &reply.Results)
		}
	}
	return reply
}

// unsent: no connection was made, so nothing was sent.
func unsent(err error) bool {
	var failed *net.OpError
	return errors.As(err, &failed) && failed.Op == "dial"
}

// query runs statements as one transaction at one node.
func (c *Client) query(node int, headers map[string]string, statements ...Statement) *Reply {
	return c.request(node, "POST", "/db/"+c.database+"/query", statements, headers)
}

func (c *Client) anyNode() int {
	for range 4 {
		node := c.random.Intn(len(c.nodes))
		if time.Now().After(c.avoided[node]) {
			return node
		}
	}
	return c.random.Intn(len(c.nodes))
}

// took tells how long a request to a node took that began then.
func (c *Client) took(node int, call int64) {
	if now()-call > int64(clientPatience/2) {
		c.avoided[node] = time.Now().Add(avoidedFor)
	}
}

// once sends a request with a key to one node after the other until it is decided, or the time is over.
func (c *Client) once(key string, until func() bool, statements ...Statement) (*Reply, Outcome) {
	headers := map[string]string{"Idempotency-Key": key}
	happened := Refused
	for node := c.anyNode(); ; node = (node + 1) % len(c.nodes) {
		call := now()
		reply := c.query(node, headers, statements...)
		c.took(node, call)
		if reply.final() {
			return reply, reply.outcome()
		}
		if reply.outcome() == Unknown {
			happened = Unknown
		}
		if until() {
			return reply, happened
		}
		time.Sleep(30 * time.Millisecond)
	}
}

func integer(value any) int {
	if number, ok := value.(float64); ok {
		return int(number)
	}
	return -1
}

func integers(rows [][]any) []int {
	list := []int{}
	for _, row := range rows {
		list = append(list, integer(row[0]))
	}
	return list
}

// openStock opens the database with the stock Go client at each node.
func openStock(nodes []string, database string) ([]*sql.DB, error) {
	var opened []*sql.DB
	for _, url := range nodes {
		db, err := sql.Open("libsql", url+"/db/"+database)
		if err != nil {
			return nil, err
		}
		db.SetMaxIdleConns(2)
		opened = append(opened, db)
	}
	return opened, nil
}

func deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), clientPatience)
}

// stockOutcome: what the stock client calls an error may have happened, unless nothing was sent or SQLite decided about
// the statement itself.
func stockOutcome(err error) Outcome {
	switch {
	case err == nil:
		return Done
	case unsent(err), takenAlready(err):
		return Refused
	}
	return Unknown
}

func takenAlready(err error) bool {
	return err != nil && strings.Contains(err.Error(), "constraint failed")
}
