// etcd_load ENDPOINTS CLIENTS SECONDS: puts of 100 bytes by so many clients at once through etcd's own client; prints
// puts a second and the times of one in milliseconds: "PUTS P50 P99".
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "etcd_load ENDPOINTS CLIENTS SECONDS")
		os.Exit(2)
	}
	clients, _ := strconv.Atoi(os.Args[2])
	seconds, _ := strconv.ParseFloat(os.Args[3], 64)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(os.Args[1], ","), DialTimeout: 5 * time.Second})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer client.Close()
	value := strings.Repeat("x", 100)
	until := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	begun := time.Now()
	times := make([][]time.Duration, clients)
	var all sync.WaitGroup
	for c := 0; c < clients; c++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := 0; time.Now().Before(until); i++ {
				start := time.Now()
				if _, err := client.Put(context.Background(), fmt.Sprintf("load/%d/%d", c, i%1000), value); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				times[c] = append(times[c], time.Since(start))
			}
		}()
	}
	all.Wait()
	took := time.Since(begun).Seconds()
	var sorted []time.Duration
	for _, each := range times {
		sorted = append(sorted, each...)
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	at := func(q float64) float64 { return sorted[int(q*float64(len(sorted)-1))].Seconds() * 1000 }
	fmt.Printf("%.0f %.3f %.3f\n", float64(len(sorted))/took, at(0.5), at(0.99))
}
