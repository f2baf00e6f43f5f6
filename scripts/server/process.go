// Package server is an NBD server as a process under test: ours or a peer. A Command
// says how to start a server and when it is ready. A Process is a running server, which
// can be stopped, killed and measured. Scripts end only processes that they have
// started, by their ids.
package server

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is how a server is started.
type Command struct {
	Name      string   // for messages and tables
	Args      []string // the program and its arguments; it must stay in the foreground
	Socket    string   // the unix socket that it will serve on
	ReadyLine string   // the line on standard output that says it is ready; none: when Socket accepts
	// User runs it as another user, which root may; nil: as this one.
	User *syscall.Credential
}

// URI is the export's address as libnbd, fio and QEMU take it.
func (c Command) URI(export string) string {
	socket := url.URL{Path: c.Socket}
	u := url.URL{Scheme: "nbd+unix", Path: "/" + export, RawQuery: "socket=" + socket.EscapedPath()}
	return u.String()
}

// readyMax bounds the wait for a server: recovery of a full buffer, or a peer
// that touches all of its memory first.
const readyMax = 60 * time.Second

// Process is a running server.
type Process struct {
	Command
	cmd    *exec.Cmd
	output *tail
	ready  chan struct{}
	done   chan struct{} // closed when the process is gone; then err is set
	err    error
}

// Start starts the server and returns when it is ready.
func Start(c Command) (*Process, error) {
	p, err := Launch(c)
	if err != nil {
		return nil, err
	}
	if err := p.WaitReady(readyMax); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Launch starts the server and does not wait.
func Launch(c Command) (*Process, error) {
	if c.ReadyLine == "" {
		// A killed peer leaves its socket, and then refuses to start.
		if err := os.Remove(c.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	p := &Process{Command: c, output: &tail{}, ready: make(chan struct{}), done: make(chan struct{})}
	p.cmd = exec.Command(c.Args[0], c.Args[1:]...)
	p.cmd.Stderr = p.output
	// The server must not outlive a script that is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Credential: c.User}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	go p.watch(bufio.NewScanner(out))
	return p, nil
}

// watch reads standard output to its end and then collects the process.
func (p *Process) watch(out *bufio.Scanner) {
	said := false
	for out.Scan() {
		fmt.Fprintln(p.output, out.Text())
		if !said && p.ReadyLine != "" && strings.TrimSpace(out.Text()) == p.ReadyLine {
			said = true
			close(p.ready)
		}
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// WaitReady returns when the server is ready, or says why it is not.
func (p *Process) WaitReady(limit time.Duration) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-p.ready:
			return nil
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %v\n%s", p.Name, p.err, p.Output())
		case <-deadline.C:
			return fmt.Errorf("%s was not ready after %v\n%s", p.Name, limit, p.Output())
		case <-again.C:
			if p.ReadyLine == "" && p.accepts() {
				return nil
			}
		}
	}
}

func (p *Process) accepts() bool {
	conn, err := net.Dial("unix", p.Socket)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output is the end of what it has printed, both streams.
func (p *Process) Output() string { return p.output.String() }

// Signal sends it a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill sends SIGKILL and returns when the process is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // gone already is as good
	<-p.done
}

// Stop sends SIGTERM and returns when the process is gone. If the process does not end
// within limit, Stop kills it and returns an error. It also returns an error if the
// process exits with one.
func (p *Process) Stop(limit time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(limit):
		p.Kill()
		return fmt.Errorf("%s did not stop within %v of SIGTERM\n%s", p.Name, limit, p.Output())
	}
	if p.err != nil {
		return fmt.Errorf("%s did not stop well: %w\n%s", p.Name, p.err, p.Output())
	}
	return nil
}

// CPU is the processor time that the process has used, user and system.
//
// It is read from the clock of the process, which counts nanoseconds and includes
// threads that have ended. /proc rounds down to 10 ms, a hundredth of a short run.
func (p *Process) CPU() (time.Duration, error) {
	// As clock_getcpuclockid(3) makes it: the process id, inverted, and in the low
	// bits "of the process, as scheduled".
	const scheduled = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.PID()<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", p.PID(), err)
	}
	return time.Duration(t.Nano()), nil
}

// RSS is the resident set in bytes.
func (p *Process) RSS() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/%d/status", p.PID())
}

// tailMax bounds the output that is kept, in bytes.
const tailMax = 64 << 10

// tail keeps the end of what is written to it. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	p  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.p = append(t.p, p...); len(t.p) > 2*tailMax {
		t.p = append(t.p[:0], t.p[len(t.p)-tailMax:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.p[max(0, len(t.p)-tailMax):])
}
