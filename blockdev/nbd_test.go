package blockdev

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// kernel is the module nbd, as far as its messages go.
type kernel struct {
	t         *testing.T
	loaded    bool
	maxAttr   uint32
	refuse    map[uint8]syscall.Errno // by command
	busy      map[uint32]bool         // devices that are taken
	questions []netlink.Message       // to the module
}

const moduleID = 33

func (k *kernel) answer(q netlink.Message) reply {
	if q.Header.Type == unix.GENL_ID_CTRL {
		if !k.loaded {
			return reply{errno: syscall.ENOENT}
		}
		return reply{answers: []netlink.Message{describe(k.t, moduleID, k.maxAttr, nil)}}
	}
	k.questions = append(k.questions, q)
	command := q.Data[0]
	if errno := k.refuse[command]; errno != 0 {
		return reply{errno: errno}
	}
	switch command {
	case nbdConnect:
		index, ok, err := decodeIndex(q.Data[4:])
		if err != nil {
			k.t.Error(err)
		}
		if !ok {
			index = 5
		}
		if k.busy[index] {
			return reply{errno: syscall.EBUSY}
		}
		return reply{answers: []netlink.Message{message(moduleID, nbdConnect, ofDevice(k.t, index))}}
	case nbdStatus:
		return reply{answers: []netlink.Message{message(moduleID, nbdStatus, encode(k.t, func(e *netlink.AttributeEncoder) {
			e.Nested(nbdDeviceList, func(list *netlink.AttributeEncoder) error {
				for index, on := range []uint8{1, 0, 1} {
					list.Nested(nbdItem, func(item *netlink.AttributeEncoder) error {
						item.Uint32(nbdDevIndex, uint32(index))
						item.Uint8(nbdDevConnect, on)
						return nil
					})
				}
				return nil
			})
		}))}}
	}
	return reply{}
}

// ofDevice is the attributes of what is about one device.
func ofDevice(t *testing.T, index uint32) []byte {
	return encode(t, func(e *netlink.AttributeEncoder) { e.Uint32(nbdIndex, index) })
}

func (k *kernel) open(t *testing.T) (*NBD, *peer) {
	t.Helper()
	k.t = t
	conn, p := newPeer(t, k.answer)
	n, err := newNBD(conn, func() error { return errors.New("no such module") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n, p
}

var config = NBDConfig{
	Size: 1 << 30, BlockSize: 512, Timeout: 30 * time.Second, DeadTimeout: 5*time.Minute - time.Millisecond,
	ServerFlags: 0x16d, Backend: "ovs:x", Sockets: []int{8, 9},
}

// The bytes that the module gets, as linux/nbd-netlink.h has them.
func TestNBDBytes(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	k := &kernel{loaded: true, maxAttr: 10}
	n, _ := k.open(t)
	const settings = `
		0c00 0200 00000040 00000000
		0c00 0300 00020000 00000000
		0c00 0400 1e000000 00000000
		0c00 0800 2c010000 00000000
		0c00 0500 6d010000 00000000
		0a00 0a00 6f76733a 7800 0000
		1c00 0780
			0c00 0180 0800 0100 08000000
			0c00 0180 0800 0100 09000000`
	if device, err := n.Connect("", config); err != nil || device != "/dev/nbd5" {
		t.Fatal(device, err)
	}
	if device, err := n.Connect("/dev/nbd2", config); err != nil || device != "/dev/nbd2" {
		t.Fatal(device, err)
	}
	if err := n.Reconfigure("/dev/nbd2", NBDConfig{Size: 2 << 30, BlockSize: 4096}); err != nil {
		t.Fatal(err)
	}
	if err := n.Disconnect("/dev/nbd2"); err != nil {
		t.Fatal(err)
	}
	if on, err := n.Connected(); err != nil || !slices.Equal(on, []string{"/dev/nbd0", "/dev/nbd2"}) {
		t.Error(on, err)
	}
	for i, want := range []struct {
		command uint8
		attrs   string
	}{
		{1, settings},
		{1, "0800 0100 02000000" + settings},
		{3, "0800 0100 02000000 0c00 0200 00000080 00000000 0c00 0300 00100000 00000000"},
		{2, "0800 0100 02000000"},
		{5, ""},
	} {
		b, err := hex.DecodeString(strings.Join(strings.Fields(want.attrs), ""))
		if err != nil {
			t.Fatal(err)
		}
		q := k.questions[i]
		b = append([]byte{want.command, 1, 0, 0}, b...)
		if q.Header.Type != moduleID || q.Header.Flags != 5 || !bytes.Equal(q.Data, b) {
			t.Errorf("question %d:\ngot  %v %x\nwant %x", i, q.Header, q.Data, b)
		}
	}
}

// A kernel before 5.14 is not told what it does not know.
func TestNBDOfOlderKernel(t *testing.T) {
	k := &kernel{loaded: true, maxAttr: 9}
	n, _ := k.open(t)
	if _, err := n.Connect("", config); err != nil {
		t.Fatal(err)
	}
	if err := decode(k.questions[0].Data[4:], func(d *netlink.AttributeDecoder) {
		if d.Type() == nbdBackend {
			t.Errorf("it is told %q", d.String())
		}
	}); err != nil {
		t.Error(err)
	}
}

// A device that was asked for and is taken is another one then.
func TestNBDTaken(t *testing.T) {
	k := &kernel{loaded: true, maxAttr: 10, busy: map[uint32]bool{2: true}}
	n, _ := k.open(t)
	if device, err := n.Connect("/dev/nbd2", config); err != nil || device != "/dev/nbd5" {
		t.Error(device, err)
	}
	k.busy[5] = true
	if _, err := n.Connect("", config); !errors.Is(err, syscall.EBUSY) {
		t.Error(err)
	}
	for _, call := range []func(string) error{n.Disconnect, func(d string) error { return n.Reconfigure(d, config) }} {
		if err := call("/dev/sda"); err == nil {
			t.Error("a disk is an NBD device")
		}
	}
}

func TestNBDRefused(t *testing.T) {
	k := &kernel{loaded: true, maxAttr: 10, refuse: map[uint8]syscall.Errno{
		nbdConnect: syscall.EPERM, nbdReconfigure: syscall.EINVAL, nbdDisconnect: syscall.ENOENT, nbdStatus: syscall.EIO,
	}}
	n, _ := k.open(t)
	_, connect := n.Connect("", config)
	k.refuse[nbdConnect] = syscall.EBADF // a socket that is none
	_, socket := n.Connect("", config)
	if errors.Is(socket, os.ErrClosed) {
		t.Errorf("it is said to be over: %v", socket)
	}
	_, status := n.Connected()
	for _, c := range []struct {
		err   error
		errno syscall.Errno
		says  string
	}{
		{connect, syscall.EPERM, "make an NBD device: the kernel lets only root (CAP_SYS_ADMIN) do it: operation not permitted"},
		{socket, syscall.EBADF, "make an NBD device: bad file descriptor"},
		{n.Reconfigure("/dev/nbd2", config), syscall.EINVAL, "dmesg"},
		{n.Disconnect("/dev/nbd2"), syscall.ENOENT, "/dev/nbd2"},
		{status, syscall.EIO, "list"},
	} {
		if !errors.Is(c.err, c.errno) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%v: not %v, or does not say %q", c.err, c.errno, c.says)
		}
	}
}

// Without the module the error says how to load it, and why that failed.
func TestNBDWithoutModule(t *testing.T) {
	k := &kernel{t: t, maxAttr: 10}
	conn, _ := newPeer(t, k.answer)
	defer conn.Close()
	if _, err := newNBD(conn, func() error { return errors.New("no such module") }); !errors.Is(err, ErrNoNBD) ||
		!strings.Contains(err.Error(), "no such module") || !strings.Contains(err.Error(), "modprobe nbd") {
		t.Error(err)
	}
	if _, err := newNBD(conn, func() error { return nil }); !errors.Is(err, ErrNoNBD) {
		t.Error(err)
	}
	if _, err := newNBD(conn, func() error { k.loaded = true; return nil }); err != nil {
		t.Error(err)
	}
}

// News of dead connections: that of other commands is left aside.
func TestDeadLinks(t *testing.T) {
	k := &kernel{loaded: true, maxAttr: 10}
	n, p := k.open(t)
	news := &DeadLinks{conn: n.conn, family: n.family}
	p.say(message(moduleID, nbdStatus, nil))
	p.say(message(moduleID+1, nbdLinkDead, ofDevice(t, 9)))
	p.say(message(moduleID, nbdLinkDead, nil))
	p.say(message(moduleID, nbdLinkDead, ofDevice(t, 3)))
	p.say(message(moduleID, nbdLinkDead, ofDevice(t, 4)), message(moduleID, nbdLinkDead, ofDevice(t, 5)))
	for _, want := range []string{"/dev/nbd3", "/dev/nbd4", "/dev/nbd5"} {
		if device, err := news.Next(); err != nil || device != want {
			t.Error(device, err)
		}
	}
	p.say(message(moduleID, nbdLinkDead, []byte{1, 2, 3}))
	if device, err := news.Next(); !errors.Is(err, errMalformed) {
		t.Error(device, err)
	}
	p.fail <- syscall.ENOBUFS
	if device, err := news.Next(); err != nil || device != "" {
		t.Error("news was lost:", device, err)
	}
	if _, err := n.Listen(); err == nil {
		t.Error("listens to a group that the kernel does not have")
	}
}

// tree makes files and symbolic links ("-> target") below a directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestNBDState(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/block/nbd0/size":    "0\n",
		"sys/block/nbd1/size":    "2048\n",
		"sys/block/nbd1/pid":     "77\n",
		"sys/block/nbd1/backend": "ovs:x\n",
		"sys/block/nbd2/size":    "8\n",
		"sys/block/nbd2/pid":     "78\n",
	})
	for device, want := range map[string]NBDState{
		"/dev/nbd0": {}, "/dev/nbd1": {"77", "ovs:x", 1 << 20}, "/dev/nbd2": {"78", "", 4096}, "/dev/nbd3": {},
	} {
		if got := nbdState(root, device); got != want {
			t.Errorf("%s: %+v", device, got)
		}
	}
	if d := nbdOf(root, "ovs:x"); d != "/dev/nbd1" {
		t.Error(d)
	}
	if d := nbdOf(root, "ovs:y"); d != "" {
		t.Error(d)
	}
}

func TestUsers(t *testing.T) {
	// A node of a device that is not there, for a process to have open.
	node := filepath.Join("/dev", "ovs-test-node")
	_ = os.Remove(node)
	made := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(243, 1))) == nil
	t.Cleanup(func() { _ = os.Remove(node) })

	root := tree(t, map[string]string{
		"sys/block/nbd0/dev":                 "243:0",
		"sys/block/nbd0/inflight":            "       0        3\n",
		"sys/block/nbd0/nbd0p1/dev":          "243:1",
		"sys/block/nbd0/nbd0p1/holders/dm-3": "",
		"sys/block/nbd1/dev":                 "243:32",
		"sys/block/nbd1/inflight":            "       0        0\n",
		"sys/fs/ext4/nbd0p1/state":           "",
		"sys/fs/ext4/nbd10/state":            "",
		"proc/swaps":                         "Filename Type Size\n/dev/nbd0p2 partition 9\n/dev/nbd0p1 partition 8\n",
		"proc/1/ns/mnt":                      "-> mnt:[1]",
		"proc/1/comm":                        "init\n",
		"proc/1/mountinfo": "30 1 243:0 / /srv rw - ext4 /dev/nbd0 rw\n" +
			"31 1 0:50 / /data rw shared:1 - btrfs /dev/nbd0p1 rw\n" +
			"32 1 243:32 / /other rw - ext4 /dev/nbd10 rw\nshort\n",
		"proc/2/ns/mnt":    "-> mnt:[1]",
		"proc/2/mountinfo": "30 1 243:0 / /seen rw - ext4 /dev/nbd0 rw\n",
		"proc/3/ns/mnt":    "-> mnt:[2]",
		"proc/3/comm":      "qemu\n",
		"proc/3/mountinfo": "30 1 243:0 / /inside rw - ext4 /dev/nbd0 rw\n",
		"proc/3/fd/4":      "-> " + node,
		"proc/3/fd/5":      "-> /dev/null",
		"proc/3/fd/6":      "-> socket:[7]",
	})
	want := []User{
		{"/dev/dm-3 is over it", false},
		{"ext4 has a file system on nbd0p1", false},
		{"it is mounted on /data", false},
		{"it is mounted on /inside", false},
		{"it is mounted on /srv", false},
		{"it is swap", false},
		{"process 3 (qemu) has it open", true},
		{"requests are under way", true},
	}
	if !made {
		t.Log("no device nodes can be made here")
		want = slices.Delete(want, 6, 7)
	}
	if got := users(root, "/dev/nbd0"); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := users(root, "/dev/nbd1"); !reflect.DeepEqual(got, []User{{"it is mounted on /other", false}}) {
		t.Errorf("%+v", got)
	}
	if got := users(root, "/dev/nbd7"); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
