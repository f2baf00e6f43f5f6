package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"openvstorage/internal/broadcast"
)

// Machine is a running QEMU and what it says on its console.
type Machine struct {
	cmd      *exec.Cmd
	keys     io.Writer // what is typed on its console
	qmp      string
	incoming string
	begun    time.Time
	done     chan struct{}

	mu      sync.Mutex
	console strings.Builder
	steps   []Step
	more    broadcast.Broadcast // there is another step
}

// Step is a line "STEP ..." of a guest.
type Step struct {
	Text string
	At   time.Duration // since the start of QEMU
}

// Config says what a guest is.
type Config struct {
	Dir      string   // what prepare made
	Temp     string   // for the sockets
	Step     string   // that init does
	Args     []string // more words of the kernel's command line
	Initrd   string   // instead of that in Dir
	Block    string   // of -blockdev, with the node name "disk"; "" for none
	Second   string   // the same with the node name "second"
	Incoming bool     // it waits for a guest that is migrated to it
	Net      bool     // a network to the machine at 10.0.2.2
	CPUs     int
	Memory   int // MiB
}

var number int

// Start starts a guest.
func Start(c Config) (*Machine, error) {
	number++
	m := &Machine{qmp: filepath.Join(c.Temp, fmt.Sprintf("qmp%d", number)), done: make(chan struct{})}
	if c.Initrd == "" {
		c.Initrd = filepath.Join(c.Dir, "initrd.gz")
	}
	args := []string{
		"-accel", "tcg,thread=multi,tb-size=256", "-smp", fmt.Sprint(max(1, c.CPUs)), "-cpu", "max", "-m", fmt.Sprint(max(c.Memory, 384)),
		"-nographic", "-no-reboot", "-kernel", filepath.Join(c.Dir, "vmlinuz"), "-initrd", c.Initrd,
		"-append", strings.Join(append([]string{"console=ttyS0 quiet mitigations=off panic=-1 step=" + c.Step}, c.Args...), " "),
		"-qmp", "unix:" + m.qmp + ",server=on,wait=off",
	}
	if c.Block != "" {
		args = append(args, "-blockdev", c.Block, "-device", "virtio-blk-pci,drive=disk,id=vda")
	}
	if c.Second != "" {
		args = append(args, "-blockdev", c.Second, "-device", "virtio-blk-pci,drive=second,id=vdb")
	}
	if c.Incoming {
		m.incoming = "unix:" + filepath.Join(c.Temp, fmt.Sprintf("in%d", number))
		args = append(args, "-incoming", m.incoming)
	}
	if c.Net {
		args = append(args, "-nic", "user,model=virtio-net-pci")
	} else {
		args = append(args, "-nic", "none")
	}
	m.cmd = exec.Command("qemu-system-x86_64", args...)
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.cmd.Stderr = m.cmd.Stdout
	if m.keys, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	m.begun = time.Now()
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go m.read(out)
	return m, nil
}

func (m *Machine) read(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		m.mu.Lock()
		m.console.WriteString(line)
		if _, text, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "STEP "); ok {
			m.steps = append(m.steps, Step{text, time.Since(m.begun)})
			m.more.Send()
		}
		m.mu.Unlock()
		if err != nil {
			break
		}
	}
	_ = m.cmd.Wait()
	close(m.done)
}

// Await returns the first step, from the one numbered from on, that begins with text.
// It fails if the guest ends, fails or takes longer than limit.
func (m *Machine) Await(text string, from int, limit time.Duration) (Step, error) {
	late := time.NewTimer(limit)
	defer late.Stop()
	for ended := false; ; {
		m.mu.Lock()
		more := m.more.Next()
		for _, s := range m.steps[min(from, len(m.steps)):] {
			if strings.HasPrefix(s.Text, text) {
				m.mu.Unlock()
				return s, nil
			}
			if strings.Contains(s.Text, " fail: ") {
				m.mu.Unlock()
				return s, fmt.Errorf("the guest says %q\n%s", s.Text, m.Console())
			}
		}
		m.mu.Unlock()
		if ended {
			return Step{}, fmt.Errorf("the guest ended before it said %q\n%s", text, m.Console())
		}
		select {
		case <-more:
		case <-m.done:
			ended = true
		case <-late.C:
			return Step{}, fmt.Errorf("the guest did not say %q within %v\n%s", text, limit, m.Console())
		}
	}
}

// Go lets a guest go on that waits for a line on its console.
func (m *Machine) Go() error {
	_, err := io.WriteString(m.keys, "\n")
	return err
}

// Steps returns all steps so far.
func (m *Machine) Steps() []Step {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Step(nil), m.steps...)
}

// Console returns all that the guest has said.
func (m *Machine) Console() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.console.String()
}

// Kill is a power cut of the guest.
func (m *Machine) Kill() {
	_ = m.cmd.Process.Kill()
	<-m.done
}

// Wait waits until the guest has powered off.
func (m *Machine) Wait(limit time.Duration) error {
	select {
	case <-m.done:
		return nil
	case <-time.After(limit):
		m.Kill()
		return errors.New("the guest did not power off\n" + m.Console())
	}
}

// Prepared returns the directory that OVS_GUEST names, "" without it.
func Prepared() string { return os.Getenv("OVS_GUEST") }
