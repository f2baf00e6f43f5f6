package nbd_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// servesEnv, if set, makes this test binary the server of BenchmarkTLSTwoProcesses.
const servesEnv = "OVS_NBD_BENCH_SERVES"

// Sizes of what BenchmarkTLSTwoProcesses asks for.
const (
	twoDepth  = 32
	twoSize   = 4096
	twoAsks   = twoDepth * nbd.RequestLen                 // a round of reads there
	twoBrings = twoDepth * (nbd.SimpleReplyLen + twoSize) // and back
	twoSends  = twoDepth * (nbd.RequestLen + twoSize)     // a round of writes there
	twoTold   = twoDepth * nbd.SimpleReplyLen             // and back
	twoDisk   = 128 << 20
	twoLength = 400 * time.Millisecond // of a turn
)

// serving is what the server says of itself: addresses, and the directory of the client's
// certificate.
type serving struct{ Plain, TLS, BarePlain, BareTLS, Dir string }

// TestServesTLSBenchmark is no test: it is the process that BenchmarkTLSTwoProcesses asks. It
// ends with its standard input.
func TestServesTLSBenchmark(t *testing.T) {
	if os.Getenv(servesEnv) == "" {
		t.Skip("only for BenchmarkTLSTwoProcesses")
	}
	ca := nbdtest.NewCA(t)
	config := ca.ServerTLS()
	config.DynamicRecordSizingDisabled = true
	s, err := nbd.NewServer(nbdtest.Exports{"disk": nbdtest.NewMemory(twoDisk)}, nbd.Options{TLS: nbd.TLS{
		Config: func() (*tls.Config, error) { return config, nil }, Authorize: whoever,
	}})
	if err != nil {
		t.Fatal(err)
	}
	said := serving{Dir: ca.WriteClient(ca.Client("vm"))}
	ended := make(chan error, 4)
	listen := func(addr *string, serve func(l net.Listener) error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*addr = l.Addr().String()
		t.Cleanup(func() { l.Close() })
		go func() { ended <- serve(l) }()
	}
	listen(&said.Plain, func(l net.Listener) error { return s.ServeTLS(context.Background(), l, nbd.TLSOff) })
	listen(&said.TLS, func(l net.Listener) error { return s.ServeTLS(context.Background(), l, nbd.TLSRequired) })
	listen(&said.BarePlain, func(l net.Listener) error { return serveBare(l, nil) })
	listen(&said.BareTLS, func(l net.Listener) error { return serveBare(l, config) })
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := s.Close(); err != nil && !errors.Is(err, nbd.ErrServerClosed) {
		t.Error(err)
	}
}

// serveBare answers rounds as the first byte of a connection says: r for reads, w for writes.
func serveBare(l net.Listener, config *tls.Config) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if config != nil {
			c = tls.Server(c, config)
		}
		go func() {
			defer c.Close()
			in := bufio.NewReaderSize(c, 128<<10)
			there, back := twoSends, twoTold
			if kind, err := in.ReadByte(); err != nil {
				return
			} else if kind == 'r' {
				there, back = twoAsks, twoBrings
			}
			p := make([]byte, max(there, back))
			for {
				if _, err := io.ReadFull(in, p[:there]); err != nil {
					return
				}
				if _, err := c.Write(p[:back]); err != nil {
					return
				}
			}
		}()
	}
}

// BenchmarkTLSTwoProcesses measures NBD by TLS beside plain, 4 KiB and 32 at once, with the server
// in a process of its own; and beside both a bare crypto/tls and a bare socket that move the same bytes. Clients
// are of Go in rounds of 32, and nbdcopy with libnbd and GnuTLS if it is there. All go by turns; figures are
// medians: thousands of requests a second, the server's CPU of one in microseconds, and TLS over plain.
func BenchmarkTLSTwoProcesses(b *testing.B) {
	said, pid := startServing(b)
	config := readClient(b, said.Dir)
	type way struct {
		name string
		run  func() float64 // requests a second
	}
	var ways []way
	for _, kind := range []string{"read", "write"} {
		for _, secure := range []bool{false, true} {
			mode, addr, bare, uri, own := "plain", said.Plain, said.BarePlain, "nbd://"+said.Plain+"/disk", (*tls.Config)(nil)
			if secure {
				_, port, _ := net.SplitHostPort(said.TLS)
				mode, addr, bare, own = "tls", said.TLS, said.BareTLS, config
				uri = "nbds://localhost:" + port + "/disk?tls-certificates=" + said.Dir
			}
			ways = append(ways, way{"nbd-" + kind + "-" + mode, roundsOfNBD(b, addr, own, kind)}, way{"bare-" + kind + "-" + mode, roundsOfBare(b, bare, own, kind)})
			if path, err := exec.LookPath("nbdcopy"); err == nil && kind == "read" {
				ways = append(ways, way{"nbdcopy-" + mode, func() float64 { return runCopy(b, path, uri) }})
			}
		}
	}
	rates, costs := map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		for _, w := range ways {
			used, began := cpuTime(b, pid), time.Now()
			rate := w.run()
			spent := cpuTime(b, pid) - used
			rates[w.name] = append(rates[w.name], rate/1000)
			costs[w.name] = append(costs[w.name], spent/1000/(rate*time.Since(began).Seconds()))
		}
	}
	middle := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	for _, w := range ways {
		b.ReportMetric(middle(rates[w.name]), w.name+"-k/s")
		b.ReportMetric(middle(costs[w.name]), w.name+"-server-us")
		if plain, ok := strings.CutSuffix(w.name, "-tls"); ok {
			b.ReportMetric(middle(rates[w.name])/middle(rates[plain+"-plain"]), plain+"-tls/plain")
		}
	}
}

// startServing starts the other process.
func startServing(b *testing.B) (said serving, pid int) {
	server := exec.Command(os.Args[0], "-test.run=^TestServesTLSBenchmark$")
	server.Env = append(os.Environ(), servesEnv+"=1")
	end, err := server.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { end.Close(); _ = server.Wait() })
	if err := json.NewDecoder(out).Decode(&said); err != nil {
		b.Fatal(err)
	}
	return said, server.Process.Pid
}

func readClient(b *testing.B, dir string) *tls.Config {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem"))
	if err != nil {
		b.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca-cert.pem"))
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		b.Fatal("no certificate of the CA")
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: "localhost", DynamicRecordSizingDisabled: true}
}

// timed does rounds for the length of a turn, and returns the requests a second.
func timed(round func()) float64 {
	began := time.Now()
	n := 0
	for time.Since(began) < twoLength {
		round()
		n += twoDepth
	}
	return float64(n) / time.Since(began).Seconds()
}

func roundsOfNBD(b *testing.B, addr string, config *tls.Config, kind string) func() float64 {
	c, err := nbdclient.Dial(b.Context(), "tcp", addr, nbdclient.Options{Export: "disk", InFlight: twoDepth, TLS: config})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	typ := nbd.CmdRead
	if kind == "write" {
		typ = nbd.CmdWrite
	}
	done := make(chan *nbdclient.Request, twoDepth)
	rs := make([]*nbdclient.Request, twoDepth)
	for i := range rs {
		rs[i] = &nbdclient.Request{Type: typ, Offset: uint64(i * twoSize), Data: make([]byte, twoSize), Done: func(r *nbdclient.Request) { done <- r }}
	}
	return func() float64 {
		return timed(func() {
			c.Start(rs...)
			for range rs {
				if r := <-done; r.Err != nil {
					b.Fatal(r.Err)
				}
			}
		})
	}
}

func roundsOfBare(b *testing.B, addr string, config *tls.Config, kind string) func() float64 {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if config != nil {
		c = tls.Client(c, config)
	}
	there, back := twoSends, twoTold
	if kind == "read" {
		there, back = twoAsks, twoBrings
	}
	if _, err := c.Write([]byte(kind[:1])); err != nil {
		b.Fatal(err)
	}
	in, p := bufio.NewReaderSize(c, 128<<10), make([]byte, max(there, back))
	return func() float64 {
		return timed(func() {
			if _, err := c.Write(p[:there]); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(in, p[:back]); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// runCopy reads the disk with nbdcopy, and returns the requests a second.
func runCopy(b *testing.B, path, uri string) float64 {
	began := time.Now()
	out, err := exec.CommandContext(b.Context(), path, "--no-extents", "--request-size="+strconv.Itoa(twoSize), "--requests="+strconv.Itoa(twoDepth), "--connections=1", "--threads=1", uri, "null:").CombinedOutput()
	if err != nil {
		b.Fatalf("nbdcopy: %v: %s", err, out)
	}
	return twoDisk / twoSize / time.Since(began).Seconds()
}

// cpuTime is what a process has used of the CPUs, in nanoseconds.
func cpuTime(b *testing.B, pid int) (sum float64) {
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
	return sum
}
