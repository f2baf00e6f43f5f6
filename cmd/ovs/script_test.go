package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"openvstorage/internal/inspect/inspecttest"
	"openvstorage/nbd/nbdtest"
)

// The scripts in testdata/script run the real binary. Beside testscript's own
// commands there are:
//
//	up [!] PROGRAM ARGS...   start `PROGRAM up ARGS...`, wait for "ready"
//	down                     SIGTERM the last one; its exit code must be 0
//	crash                    kill -9 it
//	upout PATTERN            what it has printed so far matches
//
//	await PATTERN PROGRAM ARGS...
//	                         run it again and again until its output matches
//
//	newer DIR                make DIR/ovs.format one of a later release
//	certs DIR                make certificates in it: ca-cert.pem, server-cert.pem,
//	                         client-cert.pem, and the keys of the latter two, all of a new CA
//	json stdout|stderr|FILE  it is JSON, one or more values, with no null in it
//
// A script's $SHORT is a new directory with a short name, for sockets; in $WORK
// there is a file of each format (inspecttest.Write).
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			short, err := os.MkdirTemp("", "ovs")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(short) })
			env.Setenv("SHORT", short)
			env.Setenv("OVS_DATA", "")
			env.Values[daemonsKey] = new([]*process)
			return inspecttest.Write(env.WorkDir, t)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			if name, ok := strings.CutPrefix(cond, "has:"); ok {
				_, err := exec.LookPath(name)
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"up": cmdUp, "down": cmdDown, "crash": cmdCrash, "upout": cmdUpOut, "swap": cmdSwap, "newer": cmdNewer, "certs": certs(t),
			"await": cmdAwait, "json": cmdJSON,
		},
	})
}

type key string

const daemonsKey key = "daemons"

// process is a running `ovs up`.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed once err is set
	err    error
	out    lockedBuffer // both outputs
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// How long a start and a stop may take before a test gives up on them. Nothing
// is timed: a test that is going to pass does not wait for it.
const startTimeout = 60 * time.Second

// startUp runs a command until it prints "ready" or ends.
func startUp(cmd *exec.Cmd, timeout time.Duration) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, &p.out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.Close()
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(io.TeeReader(r, &p.out))
		for lines.Scan() {
			if lines.Text() == "ready" || strings.Contains(lines.Text(), `"ready":true`) {
				ready <- true
			}
		}
		r.Close()
		p.err = cmd.Wait()
		close(p.exited)
	}()
	select {
	case <-ready:
		return p, nil
	case <-p.exited:
		return nil, fmt.Errorf("it ended with %v:\n%s", p.err, p.out.String())
	case <-time.After(timeout):
		cmd.Process.Kill()
		<-p.exited
		return nil, fmt.Errorf("not ready in %v:\n%s", timeout, p.out.String())
	}
}

// signal sends s and waits for the end.
func (p *process) signal(s os.Signal) error {
	_ = p.cmd.Process.Signal(s)
	select {
	case <-p.exited:
		return p.err
	case <-time.After(startTimeout):
		p.cmd.Process.Kill()
		<-p.exited
		return fmt.Errorf("did not end within %v of %v:\n%s", startTimeout, s, p.out.String())
	}
}

func cmdUp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: up PROGRAM ARGS...")
	}
	program, err := exec.LookPath(args[0])
	ts.Check(err)
	cmd := exec.Command(program, append([]string{"up"}, args[1:]...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "OVS_DATA="+ts.Getenv("OVS_DATA"), "GOMAXPROCS="+ts.Getenv("GOMAXPROCS"))
	p, err := startUp(cmd, startTimeout)
	if err != nil {
		ts.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	list := daemons(ts)
	*list = append(*list, p)
	ts.Defer(func() { p.signal(syscall.SIGKILL) })
}

func daemons(ts *testscript.TestScript) *[]*process { return ts.Value(daemonsKey).(*[]*process) }

// last takes the daemon that was started last.
func last(ts *testscript.TestScript) *process {
	list := daemons(ts)
	if len(*list) == 0 {
		ts.Fatalf("nothing was started with up")
	}
	p := (*list)[len(*list)-1]
	*list = (*list)[:len(*list)-1]
	return p
}

func cmdDown(ts *testscript.TestScript, neg bool, _ []string) {
	p := last(ts)
	if err := p.signal(syscall.SIGTERM); (err != nil) != neg {
		ts.Fatalf("ovs up ended with %v:\n%s", err, p.out.String())
	}
}

// cmdSwap has the daemon before the last one be the last.
func cmdSwap(ts *testscript.TestScript, _ bool, _ []string) {
	list := *daemons(ts)
	if n := len(list); n >= 2 {
		list[n-1], list[n-2] = list[n-2], list[n-1]
	}
}

func cmdCrash(ts *testscript.TestScript, _ bool, _ []string) { _ = last(ts).signal(syscall.SIGKILL) }

func cmdUpOut(ts *testscript.TestScript, neg bool, args []string) {
	list := *daemons(ts)
	if len(list) == 0 || len(args) != 1 {
		ts.Fatalf("usage: upout TEXT, after up")
	}
	out := list[len(list)-1].out.String()
	if strings.Contains(out, args[0]) == neg {
		ts.Fatalf("looked for %q in:\n%s", args[0], out)
	}
}

// cmdAwait runs a program until its output matches: what happens in the
// background is done some time.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await PATTERN PROGRAM ARGS...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && pattern.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no %s in %v (%v):\n%s%s", args[0], startTimeout, err, out, ts.ReadFile("stderr"))
		}
	}
}

// cmdNewer makes the record of a data directory one of a later release.
func cmdNewer(ts *testscript.TestScript, _ bool, args []string) {
	name := filepath.Join(ts.MkAbs(args[0]), "ovs.format")
	b, err := os.ReadFile(name)
	ts.Check(err)
	ts.Check(os.WriteFile(name, inspecttest.Newer(b), 0o600))
}

// cmdJSON checks that an output is JSON that programs can read without care: an empty list is a list,
// and nothing is null.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: json stdout|stderr|FILE")
	}
	text := ts.ReadFile(args[0])
	values := json.NewDecoder(strings.NewReader(text))
	for n := 0; ; n++ {
		var v any
		err := values.Decode(&v)
		if errors.Is(err, io.EOF) && n > 0 {
			return
		}
		if err != nil {
			ts.Fatalf("no JSON: %v in:\n%s", err, text)
		}
		if where := findNull(v, ""); where != "" {
			ts.Fatalf("%s is null in:\n%s", where, text)
		}
	}
}

// findNull returns where a null is, "" for nowhere.
func findNull(v any, at string) string {
	switch v := v.(type) {
	case nil:
		return cmp.Or(at, "all")
	case map[string]any:
		for key, field := range v {
			if where := findNull(field, at+"."+key); where != "" {
				return where
			}
		}
	case []any:
		for i, e := range v {
			if where := findNull(e, fmt.Sprintf("%s[%d]", at, i)); where != "" {
				return where
			}
		}
	}
	return ""
}

// certs is the command certs.
func certs(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: certs DIR")
		}
		dir := ts.MkAbs(args[0])
		ts.Check(os.MkdirAll(dir, 0o700))
		ca := nbdtest.NewCA(t)
		ca.WriteCA(filepath.Join(dir, "ca-cert.pem"))
		ca.WriteCert(ca.Server("server"), filepath.Join(dir, "server-cert.pem"), filepath.Join(dir, "server-key.pem"))
		ca.WriteCert(ca.Client("client"), filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem"))
	}
}
