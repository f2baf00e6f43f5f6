package guest_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/scripts/guest"
	"openvstorage/scripts/server"
)

// Limits of what a guest may take; an emulated one on a busy machine is slow.
const (
	bootMax = 5 * time.Minute
	workMax = 10 * time.Minute
	stopMax = time.Minute
)

// system is ovs with a mount and metrics.
type system struct {
	t *testing.T
	server.Ovs
	*server.Process
	mount   string
	tcp     string
	metrics string
	temp    string
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func up(t *testing.T, flags ...string) *system {
	t.Helper()
	if guest.Prepared() == "" {
		t.Skip("guests are booted by make e2e-vm")
	}
	// The paths of sockets are short.
	temp, err := os.MkdirTemp("", "ovs-guest-")
	must(t, err)
	bin, err := server.Build(temp)
	must(t, err)
	s := &system{t: t, temp: temp, mount: filepath.Join(temp, "mnt"), tcp: address(t), metrics: address(t)}
	must(t, os.Mkdir(s.mount, 0o755))
	s.Ovs = server.Ovs{Bin: bin, Data: filepath.Join(temp, "data"), Flags: append(flags, "--mount", s.mount, "--nbd-tcp", s.tcp, "--metrics", s.metrics)}
	t.Cleanup(func() {
		_ = unix.Unmount(s.mount, unix.MNT_DETACH)
		_ = os.RemoveAll(temp)
	})
	s.start()
	t.Cleanup(func() {
		if err := s.Stop(stopMax); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("ovs:\n%s", s.Output())
		}
	})
	return s
}

func (s *system) start() {
	s.t.Helper()
	p, err := server.Start(s.Up())
	must(s.t, err)
	s.Process = p
}

func (s *system) ovs(args ...string) string {
	s.t.Helper()
	out, err := s.Run(args...)
	must(s.t, err)
	return string(out)
}

// doors are the two ways from QEMU to a vDisk.
var doors = []string{"nbd", "fuse"}

// block is a vDisk as QEMU is given it: as docs/vms.md says.
func (s *system) block(door, vdisk string) string {
	s.t.Helper()
	if door == "nbd" {
		return document(s.t, "-blockdev driver=nbd,", "DIR/nbd.sock", s.Socket, "NAME", vdisk, "disk0", "disk")
	}
	return s.file(filepath.Join(s.mount, vdisk+".raw"))
}

func (s *system) file(name string) string {
	s.t.Helper()
	return document(s.t, "-blockdev driver=file,", "MNT/NAME.raw", name, "disk0", "disk")
}

// document returns the value of the first line of docs/vms.md that begins with
// this option of QEMU, with words replaced.
func document(t *testing.T, option string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/vms.md")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, option) {
			_, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			return strings.NewReplacer(replace...).Replace(value)
		}
	}
	t.Fatalf("docs/vms.md has no line %q", option)
	return ""
}

func (s *system) guest(step, block string, args ...string) *guest.Machine {
	s.t.Helper()
	return s.machine(guest.Config{Step: step, Args: args, Block: block})
}

func (s *system) machine(c guest.Config) *guest.Machine {
	s.t.Helper()
	c.Dir, c.Temp = guest.Prepared(), s.temp
	m, err := guest.Start(c)
	must(s.t, err)
	s.t.Cleanup(m.Kill)
	return m
}

// until waits for something that nobody tells of.
func (s *system) until(what string, is func() bool) {
	s.t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	late := time.After(workMax)
	for !is() {
		select {
		case <-again.C:
		case <-late:
			s.t.Fatalf("it is not so within %v that %s", workMax, what)
		}
	}
}

// metric returns the sum of a metric's values.
func (s *system) metric(name string) (sum float64) {
	s.t.Helper()
	r, err := http.Get("http://" + s.metrics + "/metrics")
	must(s.t, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	must(s.t, err)
	for _, line := range strings.Split(string(body), "\n") {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			must(s.t, err)
			sum += v
		}
	}
	return sum
}

// importRoot makes a vDisk of the Debian root.
func (s *system) importRoot(name string) {
	s.t.Helper()
	s.ovs("vdisk", "import", filepath.Join(guest.Prepared(), "root.img"), name)
	s.ovs("vdisk", "sync", name)
}

// TestBoot: a Debian boots from a vDisk, through either door, in at most 1.15 times the
// time that it takes from a raw file.
func TestBoot(t *testing.T) {
	s := up(t)
	s.importRoot("root")
	raw := filepath.Join(s.temp, "root.raw")
	out, err := exec.Command("cp", "--sparse=always", filepath.Join(guest.Prepared(), "root.img"), raw).CombinedOutput()
	if err != nil {
		t.Fatal(string(out))
	}
	times := map[string][]time.Duration{}
	blocks := map[string]string{"raw": s.file(raw), "nbd": s.block("nbd", "root"), "fuse": s.block("fuse", "root")}
	for round := range 5 {
		for _, door := range []string{"raw", "nbd", "fuse"} {
			m := s.guest("root", blocks[door])
			step, err := m.Await("boot ok", 0, bootMax)
			must(t, err)
			must(t, m.Wait(stopMax))
			if round > 0 { // the first warms what caches there are
				times[door] = append(times[door], step.At)
			}
		}
	}
	median := func(door string) time.Duration {
		slices.Sort(times[door])
		return (times[door][1] + times[door][2]) / 2
	}
	for _, door := range doors {
		ratio := float64(median(door)) / float64(median("raw"))
		t.Logf("%s: boots in %v of %v, a raw file in %v of %v: %.2f", door, median(door), times[door], median("raw"), times["raw"], ratio)
		if ratio > 1.15 {
			t.Errorf("%s: %.2f times the time of a raw file", door, ratio)
		}
	}
}

// TestFourClones: four clones that boot at once read from the backend at most a fifth
// more than one does.
func TestFourClones(t *testing.T) {
	// A small write buffer and a cache of fragments, empty at first: what is
	// read comes from the ASDs once.
	s := up(t, "--write-buffer", "64MiB", "--cache", "2GiB")
	s.importRoot("golden")
	s.ovs("vdisk", "snapshot", "create", "golden", "v1")
	for i := range 5 {
		s.ovs("vdisk", "clone", "golden@v1", fmt.Sprint("clone", i))
	}
	cold := func() {
		must(t, s.Stop(stopMax))
		must(t, os.RemoveAll(filepath.Join(s.Data, "cache")))
		s.start()
	}
	boot := func(clones ...string) float64 {
		cold()
		var all sync.WaitGroup
		errs := make([]error, len(clones))
		for i, clone := range clones {
			m := s.guest("root", s.block(doors[i%2], clone))
			all.Go(func() {
				if _, errs[i] = m.Await("boot ok", 0, 4*bootMax); errs[i] == nil {
					errs[i] = m.Wait(stopMax)
				}
			})
		}
		all.Wait()
		for _, err := range errs {
			must(t, err)
		}
		return s.metric("ovs_alba_read_bytes_total")
	}
	one := boot("clone0")
	four := boot("clone1", "clone2", "clone3", "clone4")
	t.Logf("one reads %.1f MiB from disks, four read %.1f MiB: %.2f", one/(1<<20), four/(1<<20), four/one)
	if four > 1.2*one {
		t.Errorf("four clones read %.2f times what one does", four/one)
	}
}

// TestWork: file systems in a guest are made, filled, synced and trimmed. A clone of a
// snapshot of the running guest is as after a power cut.
func TestWork(t *testing.T) {
	s := up(t)
	for _, door := range doors {
		for _, fs := range []string{"ext4", "xfs"} {
			t.Run(door+" "+fs, func(t *testing.T) {
				s.t = t
				name := "work-" + door + "-" + fs
				s.ovs("vdisk", "create", name, "--size", "512MiB")
				m := s.guest("work", s.block(door, name), "fs="+fs)
				_, err := m.Await("filled ok", 0, workMax)
				must(t, err)
				s.ovs("vdisk", "snapshot", "create", name, "running")
				s.ovs("vdisk", "clone", name+"@running", name+"-clone")
				step, err := m.Await("work ok", 0, workMax)
				must(t, err)
				must(t, m.Wait(stopMax))
				t.Logf("%s on %s: %v", fs, door, step.At)
				f, err := os.Open(filepath.Join(s.mount, name+".raw"))
				must(t, err)
				defer f.Close()
				if data, err := unix.Seek(int(f.Fd()), 300<<20, unix.SEEK_HOLE); err != nil || data == 512<<20 && fs == "ext4" {
					t.Errorf("nothing is a hole after fstrim: %d, %v", data, err)
				}
				c := s.guest("check", s.block(door, name+"-clone"), "fs="+fs)
				_, err = c.Await("check ok", 0, workMax)
				must(t, err)
				must(t, c.Wait(stopMax))
			})
		}
	}
	s.t = t
}

// synced returns what a guest has said is on its disk. One that moved from QEMU to
// QEMU has a console in each, and may move in the middle of a line.
func synced(all ...*guest.Machine) map[string]string {
	var console strings.Builder
	for _, m := range all {
		console.WriteString(m.Console())
	}
	return said(console.String(), "synced")
}

// said returns what lines "STEP verb NAME VALUE" of a console say.
func said(console, verb string) map[string]string {
	files := map[string]string{}
	for line := range strings.Lines(console) {
		_, text, _ := strings.Cut(line, "STEP ")
		if w := strings.Fields(text); len(w) == 3 && w[0] == verb {
			files[w[1]] = w[2]
		}
	}
	return files
}

// recover checks what is on the disk of a guest that was cut off.
func (s *system) recover(block string, want map[string]string) {
	s.t.Helper()
	m := s.guest("check", block)
	_, err := m.Await("check ok", 0, workMax)
	must(s.t, err)
	must(s.t, m.Wait(stopMax))
	has := said(m.Console(), "has")
	for f, sum := range want {
		if has[f] != sum {
			s.t.Errorf("%s was synced with sum %s and has %q", f, sum, has[f])
		}
	}
	s.t.Logf("%d files were synced, %d are there", len(want), len(has))
}

// awaitSynced waits until a guest has synced n more files.
func awaitSynced(t *testing.T, m *guest.Machine, n int) {
	t.Helper()
	for ; n > 0; n-- {
		_, err := m.Await("synced", len(m.Steps()), workMax)
		must(t, err)
	}
}

// TestPowerCut: the guest loses its power under load, and has all it synced.
func TestPowerCut(t *testing.T) {
	s := up(t)
	for _, door := range doors {
		s.ovs("vdisk", "create", door, "--size", "512MiB")
		m := s.guest("load", s.block(door, door))
		awaitSynced(t, m, 20)
		m.Kill()
		s.recover(s.block(door, door), synced(m))
	}
}

// TestKillServer: ovs is killed under a guest and started again. Over NBD the guest
// waits and goes on. Over the mount its disk is gone, like a disk that was pulled out;
// when the guest is started again it has everything that it had synced.
func TestKillServer(t *testing.T) {
	s := up(t)
	for _, door := range doors {
		s.ovs("vdisk", "create", door, "--size", "512MiB")
		m := s.guest("load", s.block(door, door))
		awaitSynced(t, m, 10)
		s.Kill()
		s.start()
		if door == "nbd" {
			awaitSynced(t, m, 10)
			for _, step := range m.Steps() {
				if strings.HasPrefix(step.Text, "error") {
					t.Errorf("over NBD the guest saw an error: %s", step.Text)
				}
			}
		} else if _, err := m.Await("error", 0, workMax); err != nil {
			t.Error(err)
		}
		m.Kill()
		s.recover(s.block(door, door), synced(m))
	}
}
