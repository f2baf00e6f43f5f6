package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// What the kernel's module calls them in linux/nbd-netlink.h.
const (
	nbdFamily = "nbd"
	nbdGroup  = "nbd_mc_group"

	nbdConnect     = 1
	nbdDisconnect  = 2
	nbdReconfigure = 3
	nbdLinkDead    = 4
	nbdStatus      = 5

	nbdIndex       = 1  // 4 bytes
	nbdSize        = 2  // 8 bytes
	nbdBlockSize   = 3  // 8 bytes
	nbdTimeout     = 4  // 8 bytes, seconds
	nbdServerFlags = 5  // 8 bytes
	nbdClientFlags = 6  // 8 bytes
	nbdSockets     = 7  // of items, which have a number each
	nbdDeadTimeout = 8  // 8 bytes, seconds
	nbdDeviceList  = 9  // of items, which have index and state each
	nbdBackend     = 10 // text; Linux 5.14 has it

	nbdItem       = 1 // of both lists
	nbdSocketFD   = 1 // 4 bytes
	nbdDevIndex   = 1 // 4 bytes
	nbdDevConnect = 2 // 1 byte
)

const (
	nbdPrefix = "/dev/nbd"
	// modprobeMax bounds the wait for the module to be loaded.
	modprobeMax = 10 * time.Second
)

// ErrNoNBD is the error of a kernel without NBD devices.
var ErrNoNBD = errors.New("the kernel has no NBD devices; load its module: modprobe nbd")

// NBDConfig is the configuration of an NBD device. In Reconfigure a zero number leaves
// the present value.
type NBDConfig struct {
	Size      uint64 // bytes
	BlockSize uint64 // bytes: 512, or another power of two up to a page
	// Timeout is how long a request may take, in whole seconds. After that its
	// connection counts as dead, and the request is sent on another one.
	Timeout time.Duration
	// DeadTimeout is how long requests wait for a connection while all are dead, in
	// whole seconds. Then they fail, and so does the device, for good.
	DeadTimeout time.Duration
	ServerFlags uint64 // what the server has told in the handshake
	// Backend names the server. It can be read in sysfs, and Reconfigure must
	// give the same.
	Backend string
	// Sockets are connections past their handshake. The kernel takes references of its
	// own; the caller closes these. Reconfigure replaces dead connections with them,
	// and ignores those that are left over.
	Sockets []int
}

// NBD gives orders to the kernel's NBD devices.
type NBD struct {
	conn   *kernelConn
	family family
}

// OpenNBD finds the kernel's NBD devices, and loads their module if need be.
func OpenNBD(ctx context.Context) (*NBD, error) {
	conn, err := dialKernel()
	if err != nil {
		return nil, fmt.Errorf("NBD devices: %w", err)
	}
	n, err := newNBD(conn, func() error { return modprobe(ctx) })
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return n, nil
}

func newNBD(conn *kernelConn, load func() error) (*NBD, error) {
	family, err := conn.family(nbdFamily)
	if errors.Is(err, syscall.ENOENT) {
		if loadErr := load(); loadErr != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoNBD, loadErr)
		}
		if family, err = conn.family(nbdFamily); errors.Is(err, syscall.ENOENT) {
			return nil, ErrNoNBD
		}
	}
	if err != nil {
		return nil, fmt.Errorf("NBD devices: %w", err)
	}
	return &NBD{conn, family}, nil
}

// modprobe loads the module. What it says is the reason if it fails.
func modprobe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, modprobeMax)
	defer cancel()
	program, err := exec.LookPath("modprobe")
	if err != nil {
		program = "/sbin/modprobe" // not in the PATH of everybody
	}
	out, err := exec.CommandContext(ctx, program, nbdFamily).CombinedOutput()
	if text, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n"); err != nil && text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// Close gives back the socket. Devices stay.
func (n *NBD) Close() error { return n.conn.Close() }

// NBDDevice is the path of a device.
func NBDDevice(index uint32) string { return nbdPrefix + strconv.FormatUint(uint64(index), 10) }

// NBDIndex is the number of a device.
func NBDIndex(device string) (index uint32, ok bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(device, nbdPrefix), 10, 32)
	return uint32(n), err == nil && strings.HasPrefix(device, nbdPrefix)
}

// Connect makes a device of a server and returns its path. That is the device asked
// for, or one that the kernel picks if device is "" or taken.
func (n *NBD) Connect(device string, c NBDConfig) (string, error) {
	index, asked := NBDIndex(device)
	made, err := n.conn.ask(n.family, nbdConnect, func(e *netlink.AttributeEncoder) {
		if asked {
			e.Uint32(nbdIndex, index)
		}
		n.config(e, c)
	})
	if errors.Is(err, syscall.EBUSY) && asked {
		made, err = n.conn.ask(n.family, nbdConnect, func(e *netlink.AttributeEncoder) { n.config(e, c) })
	}
	if err != nil {
		return "", nbdError("make an NBD device", err)
	}
	index, ok, err := decodeIndex(made)
	if err == nil && !ok {
		err = errors.New("the kernel does not say which it is")
	}
	if err != nil {
		return "", fmt.Errorf("make an NBD device: %w", err)
	}
	return NBDDevice(index), nil
}

// decodeIndex finds the number of a device in an answer or in news.
func decodeIndex(b []byte) (index uint32, ok bool, err error) {
	err = decode(b, func(d *netlink.AttributeDecoder) {
		if d.Type() == nbdIndex {
			index, ok = d.Uint32(), true
		}
	})
	return index, ok && err == nil, err
}

// Reconfigure replaces the dead sockets of a connected device, and changes its numbers,
// while the device is in use.
func (n *NBD) Reconfigure(device string, c NBDConfig) error {
	index, ok := NBDIndex(device)
	if !ok {
		return fmt.Errorf("%q is no NBD device", device)
	}
	_, err := n.conn.ask(n.family, nbdReconfigure, func(e *netlink.AttributeEncoder) {
		e.Uint32(nbdIndex, index)
		n.config(e, c)
	})
	return nbdError("connect "+device+" again", err)
}

// Disconnect takes the server of a device away. Its users get errors.
func (n *NBD) Disconnect(device string) error {
	index, ok := NBDIndex(device)
	if !ok {
		return fmt.Errorf("%q is no NBD device", device)
	}
	_, err := n.conn.ask(n.family, nbdDisconnect, func(e *netlink.AttributeEncoder) { e.Uint32(nbdIndex, index) })
	return nbdError("disconnect "+device, err)
}

// Connected tells which devices have a server, dead or alive.
func (n *NBD) Connected() (devices []string, err error) {
	answer, err := n.conn.ask(n.family, nbdStatus, nil)
	if err != nil {
		return nil, nbdError("list NBD devices", err)
	}
	if devices, err = decodeConnected(answer); err != nil {
		return nil, fmt.Errorf("list NBD devices: %w", err)
	}
	return devices, nil
}

func decodeConnected(answer []byte) (devices []string, err error) {
	item := func(d *netlink.AttributeDecoder) error {
		index, on := uint32(0), uint8(0)
		for d.Next() {
			switch d.Type() {
			case nbdDevIndex:
				index = d.Uint32()
			case nbdDevConnect:
				on = d.Uint8()
			}
		}
		if on != 0 {
			devices = append(devices, NBDDevice(index))
		}
		return nil // the library asks d for its error
	}
	err = decode(answer, func(d *netlink.AttributeDecoder) {
		if d.Type() == nbdDeviceList {
			d.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(item)
				}
				return nil
			})
		}
	})
	if err != nil {
		return nil, err
	}
	return devices, nil
}

// config writes what is not zero.
func (n *NBD) config(e *netlink.AttributeEncoder, c NBDConfig) {
	put := func(typ uint16, v uint64) {
		if v != 0 {
			e.Uint64(typ, v)
		}
	}
	put(nbdSize, c.Size)
	put(nbdBlockSize, c.BlockSize)
	put(nbdTimeout, seconds(c.Timeout))
	put(nbdDeadTimeout, seconds(c.DeadTimeout))
	put(nbdServerFlags, c.ServerFlags)
	if c.Backend != "" && n.family.maxAttr >= nbdBackend {
		e.String(nbdBackend, c.Backend)
	}
	if len(c.Sockets) > 0 {
		e.Nested(nbdSockets, func(list *netlink.AttributeEncoder) error {
			for _, fd := range c.Sockets {
				list.Nested(nbdItem, func(item *netlink.AttributeEncoder) error {
					item.Uint32(nbdSocketFD, uint32(fd))
					return nil
				})
			}
			return nil
		})
	}
}

// seconds rounds up: a short time must not become none.
func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }

func nbdError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: the kernel lets only root (CAP_SYS_ADMIN) do it: %w", what, err)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%s: the kernel refuses, and says why in its log (dmesg): %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// DeadLinks is the news of connections that died.
type DeadLinks struct {
	conn   *kernelConn
	family family
	came   []string // devices of news that came along with what Next has told
}

// Listen begins to take the news.
func (n *NBD) Listen() (*DeadLinks, error) {
	group, ok := n.family.groups[nbdGroup]
	if !ok {
		return nil, fmt.Errorf("NBD devices: the kernel has no group %s", nbdGroup)
	}
	conn, err := listen(group)
	if err != nil {
		return nil, fmt.Errorf("NBD devices: %w", err)
	}
	return &DeadLinks{conn: conn, family: n.family}, nil
}

// Next waits until a connection dies and returns its device. It returns "" if the
// kernel has dropped news: the connection may be of any device then. After Close the
// error matches os.ErrClosed. Next is for one goroutine.
func (d *DeadLinks) Next() (device string, err error) {
	for len(d.came) == 0 {
		news, lost, err := d.conn.next(d.family)
		if lost || err != nil {
			return "", err
		}
		for _, m := range news {
			if m.Header.Command != nbdLinkDead {
				continue
			}
			index, ok, err := decodeIndex(m.Data)
			if err != nil {
				return "", fmt.Errorf("news of %s: %w", d.family.name, err)
			}
			if ok {
				d.came = append(d.came, NBDDevice(index))
			}
		}
	}
	device, d.came = d.came[0], d.came[1:]
	return device, nil
}

// Close ends the news; a Next that waits returns an error.
func (d *DeadLinks) Close() error { return d.conn.Close() }

// NBDState is what sysfs says of a device. The zero value: it has no server.
type NBDState struct {
	PID     string // of the process that connected it
	Backend string // as it was named then; "" before Linux 5.14
	Size    uint64 // bytes
}

// StateOfNBD looks a device up.
func StateOfNBD(device string) NBDState { return nbdState("/", device) }

func nbdState(root, device string) NBDState {
	dir := filepath.Join(root, "sys/block", filepath.Base(device))
	pid := sysfs(dir, "pid")
	if pid == "" {
		return NBDState{}
	}
	sectors, _ := strconv.ParseUint(sysfs(dir, "size"), 10, 64)
	return NBDState{pid, sysfs(dir, "backend"), sectors * sectorSize}
}

// NBDOf finds the device that has a backend of that name, "" if there is none.
func NBDOf(backend string) string { return nbdOf("/", backend) }

func nbdOf(root, backend string) string {
	names, _ := filepath.Glob(filepath.Join(root, "sys/block/nbd*"))
	for _, name := range names {
		device := "/dev/" + filepath.Base(name)
		if s := nbdState(root, device); s.PID != "" && s.Backend == backend {
			return device
		}
	}
	return ""
}

// sysfs reads a small file, "" if there is none.
func sysfs(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b))
}
