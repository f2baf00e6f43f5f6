package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/scripts/server"
	"openvstorage/scripts/stamp"
)

// stamping is a stamped disk: its log and history over many rounds.
type stamping struct {
	t       *testing.T
	log     *stamp.Log
	history *stamp.History
	seed    uint64
	socket  string
	export  string
}

func newStamping(t *testing.T, socket, export string, size int64) *stamping {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	l, err := stamp.CreateLog(filepath.Join(t.TempDir(), "stamps"), seed, size)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return &stamping{t: t, log: l, history: stamp.NewHistory(), seed: seed, socket: socket, export: export}
}

func (s *stamping) dial() []stamp.Client {
	s.t.Helper()
	clients, err := stamp.Dial(s.t.Context(), s.socket, s.export, 4)
	must(s.t, err)
	return clients
}

// run writes until during returns. Connections that break are what during
// is for.
func (s *stamping) run(during func()) stamp.Stats {
	s.t.Helper()
	clients := s.dial()
	defer stamp.Hangup(clients)
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan stamp.Stats, 1)
	go func() {
		s.seed++
		stats, err := stamp.Run(ctx, stamp.Options{Log: s.log, Conns: stamp.Conns(clients), Seed: s.seed})
		if err != nil {
			s.t.Logf("the writers ended: %s", strings.SplitN(err.Error(), "\n", 2)[0])
		}
		ended <- stats
	}()
	during()
	cancel()
	// Requests that the server holds back, as on a full disk, may wait for
	// ever: after a while their clients leave.
	leave := time.AfterFunc(3*time.Second, func() { stamp.Hangup(clients) })
	defer leave.Stop()
	return <-ended
}

// verify proves that what was acknowledged is present.
func (s *stamping) verify(full bool) *stamp.Report {
	s.t.Helper()
	clients := s.dial()
	defer stamp.Hangup(clients)
	must(s.t, s.history.Catch(s.log.Name()))
	r, err := stamp.Verify(s.t.Context(), s.history, s.log, stamp.VerifyOptions{Full: full, Conns: stamp.Readings(clients)})
	must(s.t, err)
	must(s.t, r.Err())
	return r
}

// TestKillServer: the server is killed 20 times while four connections write. Every
// acknowledged write is there after the restart.
func TestKillServer(t *testing.T) {
	rounds, size := 20, int64(2*gib)
	if testing.Short() {
		rounds, size = 3, 256*mib
	}
	s := killable(t, size, "--write-buffer", "256MiB")
	st := newStamping(t, s.Socket, s.export, size)
	random := rand.New(rand.NewPCG(st.seed, 1))
	for round := range rounds {
		// A random moment, now and then before the first reply.
		wait := time.Duration(random.Int64N(int64(1200 * time.Millisecond)))
		stats := st.run(func() {
			<-time.After(wait)
			s.Kill()
		})
		s.start()
		r := st.verify(round == rounds-1)
		t.Logf("round %d: killed after %v: %d acknowledged, %d of %d writes present", round, wait, stats.Acked, r.Present, r.Issued)
	}
}

// TestForgetfulServer is the control of TestKillServer: it finds out a server that
// loses what it acknowledged.
func TestForgetfulServer(t *testing.T) {
	need(t, "nbdkit")
	c := server.NBDKit(t.TempDir(), "forgetful", "memory", "64M")
	p, err := server.Start(c)
	must(t, err)
	defer func() { p.Kill() }()
	st := newStamping(t, c.Socket, "", 64*mib)
	st.run(func() {
		<-time.After(300 * time.Millisecond)
		p.Kill()
	})
	p, err = server.Start(c)
	must(t, err)
	clients := st.dial()
	defer stamp.Hangup(clients)
	must(t, st.history.Catch(st.log.Name()))
	r, err := stamp.Verify(t.Context(), st.history, st.log, stamp.VerifyOptions{Conns: stamp.Readings(clients)})
	must(t, err)
	if r.Err() == nil || r.Findings[0].Fault != stamp.Lost {
		t.Errorf("a server that forgot everything was believed: %v", r.Err())
	}
}

// TestKillServerInTheStart: a server that is killed while it recovers succeeds the next
// time.
func TestKillServerInTheStart(t *testing.T) {
	s := killable(t, 256*mib, "--write-buffer", "64MiB")
	st := newStamping(t, s.Socket, s.export, 256*mib)
	random := rand.New(rand.NewPCG(st.seed, 1))
	st.run(func() {
		<-time.After(700 * time.Millisecond)
		s.Kill()
	})
	for range 8 {
		p, err := server.Launch(s.command)
		must(t, err)
		<-time.After(time.Duration(random.Int64N(int64(150 * time.Millisecond))))
		p.Kill()
	}
	s.start()
	st.verify(false)
}

// TestStopUnderLoad: SIGTERM during writes ends the server within its bound, and loses
// nothing.
func TestStopUnderLoad(t *testing.T) {
	if *standIn != "" {
		t.Skipf("%s waits for its clients", *standIn)
	}
	s := killable(t, 256*mib, "--write-buffer", "64MiB")
	st := newStamping(t, s.Socket, s.export, 256*mib)
	var took time.Duration
	st.run(func() {
		<-time.After(time.Second)
		start := time.Now()
		must(t, s.Stop(stopMax))
		took = time.Since(start)
	})
	t.Logf("stopped in %v", took)
	s.start()
	st.verify(true)
}

// TestKillClient: clients that vanish in the middle of requests hurt nobody.
func TestKillClient(t *testing.T) {
	need(t, "fio")
	_, socket, export := newDisk(t, 512*mib)
	st := newStamping(t, socket, export, 256*mib) // the stamps keep to the first half
	st.run(func() {
		for range 6 {
			load := exec.Command("fio", "--name=victim", "--thread", "--ioengine=nbd",
				"--uri="+server.Command{Socket: socket}.URI(export), "--rw=randrw", "--bsrange=4k-1m", "--iodepth=32",
				"--offset=256m", "--size=256m", "--time_based", "--runtime=60", "--output=/dev/null")
			load.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			must(t, load.Start())
			<-time.After(250 * time.Millisecond)
			must(t, syscall.Kill(-load.Process.Pid, syscall.SIGKILL)) // fio works in a child
			_ = load.Wait()                                           // killed, as it should be
		}
		breakOff(t, socket, export)
	})
	st.verify(false)
}

// breakOff leaves in the middle of a write and of a read.
func breakOff(t *testing.T, socket, export string) {
	t.Helper()
	for i := range 20 {
		c, err := nbdclient.Dial(t.Context(), "unix", socket, nbdclient.Options{Export: export, Compact: true})
		must(t, err)
		half := nbd.AppendRequest(nil, nbd.Request{Type: nbd.CmdWrite, Cookie: 1, Offset: 300 * mib, Length: 1 * mib})
		if i%2 == 0 {
			half = nbd.AppendRequest(nil, nbd.Request{Type: nbd.CmdRead, Cookie: 1, Offset: 300 * mib, Length: 8 * mib})
		}
		_, err = c.Conn().Write(append(half, make([]byte, i*4096)...))
		must(t, err)
		c.Abort()
	}
}

// TestSlowClients: clients that do not read their replies, or never end
// their handshake, hold up nobody else.
func TestSlowClients(t *testing.T) {
	_, socket, export := newDisk(t, 256*mib)
	for range 4 {
		conn, err := net.Dial("unix", socket)
		must(t, err)
		defer conn.Close()
		h := nbdclient.NewHandshake(conn)
		must(t, h.Start(nbd.FlagFixedNewstyle|nbd.FlagNoZeroes))
		_, err = h.Go(export)
		must(t, err)
		var many []byte
		for i := range uint64(200) {
			many = nbd.AppendRequest(many, nbd.Request{Type: nbd.CmdRead, Cookie: i, Offset: i * mib, Length: 1 * mib})
		}
		_, err = conn.Write(many)
		must(t, err)

		silent, err := net.Dial("unix", socket)
		must(t, err)
		defer silent.Close()
	}
	st := newStamping(t, socket, export, 256*mib)
	stats := st.run(func() { <-time.After(time.Second) })
	if stats.Acked == 0 {
		t.Error("nothing was acknowledged beside slow clients")
	}
	st.verify(false)
}

// TestSecondServer: a directory has one server.
func TestSecondServer(t *testing.T) {
	s := up(t)
	uri := s.create("disk", gib)
	if second, err := server.Start(s.Up()); err == nil {
		second.Kill()
		t.Fatal("a second ovs started on the same directory")
	} else if !strings.Contains(err.Error(), s.Data) {
		t.Errorf("the refusal does not name the directory: %v", err)
	}
	nbdsh(t, uri, `h.pwrite(b"x" * 4096, 0)`) // and the first one lives
}

// TestPausedServer: a server that was stopped for a while goes on.
func TestPausedServer(t *testing.T) {
	s := killable(t, 256*mib, "--write-buffer", "64MiB")
	st := newStamping(t, s.Socket, s.export, 256*mib)
	st.run(func() {
		<-time.After(200 * time.Millisecond)
		must(t, s.Signal(syscall.SIGSTOP))
		<-time.After(300 * time.Millisecond)
		must(t, s.Signal(syscall.SIGCONT))
		<-time.After(200 * time.Millisecond)
	})
	st.verify(false)
}

// TestNoSpace: on a full file system writes wait or are refused. Nothing is lost, the
// process lives, and when there is more room it goes on.
func TestNoSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	if *standIn != "" {
		t.Skip("needs ovs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=192m"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := upAt(t, filepath.Join(dir, "data"), "--write-buffer", "64MiB")
	s.create("disk", gib)
	st := newStamping(t, s.Socket, "disk", gib)
	stats := st.run(func() { fillUp(t, s) })
	t.Logf("%d of %d writes were acknowledged before the end of the space", stats.Acked, stats.Writes)
	select {
	case <-s.Done():
		t.Fatalf("ovs ended when the space did:\n%s", s.Output())
	default:
	}
	st.verify(false)
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=2g"))
	st.run(func() { <-time.After(time.Second) })
	s.Kill()
	s.start()
	st.verify(true)
}

// fillUp waits until the file system has been full, or nearly, for a second. What
// ovs leaves of it to others, others take.
func fillUp(t *testing.T, s *system) {
	t.Helper()
	others, err := os.Create(filepath.Join(filepath.Dir(s.Data), "others"))
	must(t, err)
	defer others.Close()
	var fs syscall.Statfs_t
	full := 0
	eventually(t, 20*time.Second, "the file system is full", func() bool {
		must(t, syscall.Statfs(s.Data, &fs))
		if int64(fs.Bavail)*fs.Bsize < 8*mib {
			full++
		} else if _, err := others.Write(make([]byte, mib)); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		return full > 20
	})
}
