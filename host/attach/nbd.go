package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"openvstorage/blockdev"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

// nbdDevices makes NBD devices of the kernel, each on pairs of sockets of which our own
// server has one end. Its methods are called under Devices.mu.
type nbdDevices struct {
	dir    string
	server *nbd.Server
	logger *slog.Logger
	boot   string // of the machine: what was recorded in another is gone

	orders  *blockdev.NBD // nil until they are needed
	news    *blockdev.DeadLinks
	flusher sync.Once
	conns   connections
}

func newNBDDevices(dir string, server *nbd.Server, logger *slog.Logger) *nbdDevices {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return &nbdDevices{dir: dir, server: server, logger: logger, boot: strings.TrimSpace(string(boot))}
}

// available returns nil if the kernel has NBD devices. It loads their module.
func (k *nbdDevices) available(ctx context.Context) (err error) {
	if k.orders == nil {
		if os.Geteuid() != 0 {
			return errors.New("NBD devices are made by root; start `ovs up` as root")
		}
		k.orders, err = blockdev.OpenNBD(ctx)
	}
	return err
}

// backend is how the kernel is told to name the server of a vDisk. It differs for a copy
// of the data directory, which must not take the devices of the original.
func (k *nbdDevices) backend(id uuid.UUID) string { return "ovs:" + id.String() + ":" + k.dir }

// ours reports whether the device of an attachment is connected, and by us. Before Linux
// 5.14 the kernel does not tell the name of the server: then the number of the process
// that connected it decides.
func (k *nbdDevices) ours(a attachment) bool {
	s := blockdev.StateOfNBD(a.Device)
	return s.PID != "" && (s.Backend == k.backend(a.ID) || s.Backend == "" && s.PID == a.PID && k.boot == a.Boot)
}

// find returns the device that is connected for a vDisk, "" if none is.
func (k *nbdDevices) find(a attachment) string {
	if device := blockdev.NBDOf(k.backend(a.ID)); device != "" {
		return device
	}
	if a.Device != "" && k.ours(a) {
		return a.Device
	}
	return ""
}

// attach makes the device of an attachment. With again, the device may be there, with
// requests of its users that wait for us: then it gets new sockets. Without, a device
// that is there was left by an attach that was cut short, and is disconnected.
func (k *nbdDevices) attach(ctx context.Context, a *attachment, again bool) error {
	if err := k.available(ctx); err != nil {
		return err
	}
	waits := k.find(*a)
	if waits != "" && !again {
		if users := blockdev.Users(waits); len(users) > 0 {
			return fmt.Errorf("%s was made for it before and is in use: %s", waits, usersText(users))
		}
		if err := k.orders.Disconnect(waits); err != nil {
			return err
		}
		waits = ""
	}
	k.flusher.Do(k.ioFlusher)
	if waits != "" {
		a.Device = waits
		return k.mend(ctx, a)
	}
	c, ends, err := k.config(ctx, *a)
	if err != nil {
		return err
	}
	defer closeAll(ends)
	device, err := k.orders.Connect(a.Device, c)
	if err != nil {
		return err
	}
	a.Device, a.size = device, c.Size
	a.PID, a.Boot = blockdev.StateOfNBD(device).PID, k.boot
	return nil
}

// mend gives a connected device new sockets for dead ones, and the size that the vDisk
// has.
func (k *nbdDevices) mend(ctx context.Context, a *attachment) error {
	c, ends, err := k.config(ctx, *a)
	if err != nil {
		return err
	}
	defer closeAll(ends)
	if err := k.orders.Reconfigure(a.Device, c); err != nil {
		return err
	}
	a.size = c.Size
	return nil
}

// config opens connections to the vDisk, and returns what the kernel is to be told of
// them. The caller closes ends when it has told the kernel: the kernel holds what it has
// taken.
func (k *nbdDevices) config(ctx context.Context, a attachment) (c blockdev.NBDConfig, ends []*os.File, err error) {
	c = blockdev.NBDConfig{
		BlockSize: uint64(a.blockSize()), Backend: k.backend(a.ID),
		Timeout: time.Duration(a.Timeout) * time.Second, DeadTimeout: time.Duration(a.DeadTimeout) * time.Second,
	}
	for range a.Connections {
		end, fd, info, err := k.link(ctx, a)
		if err != nil {
			closeAll(ends)
			return c, nil, err
		}
		ends, c.Sockets = append(ends, end), append(c.Sockets, fd)
		c.Size, c.ServerFlags = uint64(info.Size), uint64(info.Flags)
	}
	if a.ReadOnly {
		c.ServerFlags = c.ServerFlags&^uint64(nbd.SendTrim|nbd.SendWriteZeroes|nbd.SendFastZero) | uint64(nbd.ReadOnly)
	}
	return c, ends, nil
}

// handshakeMax bounds a handshake with the server of this process.
const handshakeMax = 10 * time.Second

// link opens one connection and does its handshake. It asks for no structured replies,
// which the kernel does not know.
func (k *nbdDevices) link(ctx context.Context, a attachment) (end *os.File, fd int, info nbdclient.ExportInfo, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, 0, info, fmt.Errorf("sockets of an NBD device: %w", err)
	}
	served := os.NewFile(uintptr(pair[0]), "nbd device")
	defer served.Close()
	fd, end = pair[1], os.NewFile(uintptr(pair[1]), "nbd device")
	conn, err := net.FileConn(served)
	if err != nil {
		_ = end.Close()
		return nil, 0, info, fmt.Errorf("sockets of an NBD device: %w", err)
	}
	k.conns.serve(k.server, a.ID, conn.(*net.UnixConn))
	stop := context.AfterFunc(ctx, func() { _ = end.SetDeadline(time.Unix(1, 0)) })
	err = end.SetDeadline(time.Now().Add(handshakeMax))
	if err == nil {
		h := nbdclient.NewHandshake(end)
		if err = h.Start(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes); err == nil {
			info, err = h.Go(a.Name)
		}
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = end.Close()
		return nil, 0, info, fmt.Errorf("connect to the NBD server: %w", err)
	}
	return end, fd, info, nil
}

// closeAll closes our ends of connections that the kernel has. They had to stay open
// until here, because the kernel was told their numbers.
func closeAll(ends []*os.File) {
	for _, e := range ends {
		_ = e.Close()
	}
	runtime.KeepAlive(ends)
}

// detach takes a device away. It waits for the end of the device's connections, so that
// the vDisk is free then.
func (k *nbdDevices) detach(a attachment) error {
	if err := k.available(context.Background()); err != nil {
		return err
	}
	if err := k.orders.Disconnect(a.Device); err != nil {
		return err
	}
	k.conns.wait(a.ID)
	if on, err := k.orders.Connected(); err == nil && slices.Contains(on, a.Device) {
		k.logger.Warn("a block device has no vDisk any more and stays until its last user closes it", "vdisk", a.Name, "device", a.Device)
	}
	return nil
}

// suspend stops serving a device that is in use. Requests that were sent are answered.
// Others wait in the kernel for the next start.
func (k *nbdDevices) suspend(a attachment) {
	k.conns.halfClose(a.ID)
	k.conns.wait(a.ID)
}

// listen begins to hear of connections that died, unless it has begun before.
func (k *nbdDevices) listen(run func(func()), died func(device string)) {
	if k.news != nil {
		return
	}
	news, err := k.orders.Listen()
	if err != nil {
		k.logger.Warn("connections that the kernel gives up will not be replaced", "err", err)
		return
	}
	k.news = news
	run(func() {
		for {
			device, err := news.Next()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil {
				k.logger.Warn("connections that the kernel gives up will not be replaced any more", "err", err)
				return
			}
			died(device)
		}
	})
}

func (k *nbdDevices) close() {
	if k.orders != nil {
		_ = k.orders.Close()
	}
}

// ioFlusher tells the kernel that its block devices need this process. Then the kernel
// does not write to these devices to free memory for this process, and does not have
// writes of this process wait for those devices.
func (k *nbdDevices) ioFlusher() {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0); errno != 0 {
		k.logger.Warn("without PR_SET_IO_FLUSHER a machine that is out of memory may stand still", "err", errno)
	}
}

// connections are those of devices, as our server has them, by vDisk.
type connections struct {
	mu   sync.Mutex
	open map[uuid.UUID]*diskConns
}

// diskConns are the connections of one vDisk. A device that is made while connections of
// the device before still live counts as the same client: what it writes must outlive
// what they hold.
type diskConns struct {
	client nbd.Resender
	conns  map[*net.UnixConn]chan struct{} // closed at its end
}

// serve serves a connection in the background.
func (l *connections) serve(server *nbd.Server, id uuid.UUID, conn *net.UnixConn) {
	done := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[uuid.UUID]*diskConns{}
	}
	d := l.open[id]
	if d == nil {
		d = &diskConns{conns: map[*net.UnixConn]chan struct{}{}}
		l.open[id] = d
	}
	d.conns[conn] = done
	go func() {
		defer close(done)
		_ = server.ServeResender(conn, &d.client) // it has logged its error
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(d.conns, conn)
		if len(d.conns) == 0 {
			delete(l.open, id)
		}
	}()
}

// of returns the connections of a vDisk. l.mu is held.
func (l *connections) of(id uuid.UUID) map[*net.UnixConn]chan struct{} {
	if d := l.open[id]; d != nil {
		return d.conns
	}
	return nil
}

// halfClose lets no more requests in. Those that were sent are served.
func (l *connections) halfClose(id uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.of(id) {
		_ = conn.CloseRead() // fails only if it has ended
	}
}

// wait waits for the end of connections that were told to end. The drain timeout of the
// server bounds that.
func (l *connections) wait(id uuid.UUID) {
	l.mu.Lock()
	var ends []chan struct{}
	for _, done := range l.of(id) {
		ends = append(ends, done)
	}
	l.mu.Unlock()
	for _, done := range ends {
		<-done
	}
}
