package kvclient

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// serveEnv, if set, makes this test binary the other process of BenchmarkTwoProcesses.
const serveEnv = "OVS_KVCLIENT_BENCH_SERVES"

// TestServesBenchmark is no test: it is the process that BenchmarkTwoProcesses asks. It ends
// with its standard input.
func TestServesBenchmark(t *testing.T) {
	if os.Getenv(serveEnv) == "" {
		t.Skip("only for BenchmarkTwoProcesses")
	}
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	there, back := bareSizes()
	go func() {
		for {
			c, err := bare.Accept()
			if err != nil {
				return
			}
			go echo(c, there, back)
		}
	}()
	h := newHost(t, 3, openNode(t), kv.Options{})
	fmt.Printf("serving %s %s\n", bare.Addr(), h.addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// benchKey and benchValue are what is read. bareSizes are the bytes of a read there and back,
// with all that the wire and kv add.
var (
	benchKey   = []byte("some/key/of/usual/length")
	benchValue = make([]byte, 256)
)

func bareSizes() (there, back int) { return 48 + 12 + len(benchKey), 48 + 16 + len(benchValue) }

// echo answers each message of so many bytes with so many.
func echo(c net.Conn, there, back int) {
	defer c.Close()
	in, out := make([]byte, there), make([]byte, back)
	for {
		if _, err := io.ReadFull(c, in); err != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// BenchmarkTwoProcesses reads one value of 256 B of a member in another process, one after the
// other and 64 at a time, and beside it a bare socket with the same bytes, all by turns in one
// run. Figures are medians of the turns: microseconds of a request, and of CPU of both
// processes.
func BenchmarkTwoProcesses(b *testing.B) {
	server := exec.Command(os.Args[0], "-test.run=^TestServesBenchmark$")
	server.Env = append(os.Environ(), serveEnv+"=1")
	end, err := server.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	said, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { end.Close(); _ = server.Wait() })
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	var bareAddr, kvAddr string
	if _, err := fmt.Sscanf(line, "serving %s %s", &bareAddr, &kvAddr); err != nil {
		b.Fatalf("the other process says %q: %v", line, err)
	}
	c := newClient(b, Options{Members: func() []Member {
		return []Member{{ID: 3, Dial: wire.DialOptions{Network: "tcp", Address: kvAddr, Identity: wire.Identity{Cluster: testCluster}}}}
	}})
	if _, err := c.Set(b.Context(), benchKey, benchValue); err != nil {
		b.Fatal(err)
	}
	conn, err := net.Dial("tcp", bareAddr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	there, back := bareSizes()
	out, in := make([]byte, there), make([]byte, back)
	ctx, stop := context.WithTimeout(b.Context(), time.Hour)
	defer stop()
	read := func(how arakoon.Consistency) func() {
		return func() {
			if _, err := c.Get(ctx, how, benchKey); err != nil {
				b.Error(err)
			}
		}
	}
	ways := []struct {
		name   string
		flight int
		once   func()
	}{
		{"bare", 1, func() {
			if _, err := conn.Write(out); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, in); err != nil {
				b.Fatal(err)
			}
		}},
		{"local", 1, read(arakoon.Local)},
		{"local-2", 2, read(arakoon.Local)},
		{"local-64", 64, read(arakoon.Local)},
		{"consistent", 1, read(arakoon.Consistent)},
	}
	const turn = 2000
	took, spent := make([][]float64, len(ways)), make([][]float64, len(ways))
	for b.Loop() {
		for i, w := range ways {
			used, began := cpuOf(b, os.Getpid(), server.Process.Pid), time.Now()
			var all sync.WaitGroup
			for range w.flight {
				all.Go(func() {
					for range turn / w.flight {
						w.once()
					}
				})
			}
			all.Wait()
			took[i] = append(took[i], float64(time.Since(began).Nanoseconds())/turn/1000)
			spent[i] = append(spent[i], (cpuOf(b, os.Getpid(), server.Process.Pid)-used)/turn/1000)
		}
	}
	for i, w := range ways {
		b.ReportMetric(middle(took[i]), "us-"+w.name)
		b.ReportMetric(middle(spent[i]), "cpu-us-"+w.name)
	}
	b.ReportMetric(middle(took[1])/middle(took[0]), "local/bare")
}

func middle(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// cpuOf is what processes have used of the CPUs, in nanoseconds.
func cpuOf(b *testing.B, pids ...int) (sum float64) {
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			b.Fatal(err)
		}
		for _, task := range tasks {
			said, err := os.ReadFile(task)
			if err != nil {
				continue // the thread has ended
			}
			ns, err := strconv.ParseFloat(strings.Fields(string(said))[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += ns
		}
	}
	return sum
}
