package genl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Port is a netlink socket: each Write is a message, each Read brings whole
// ones.
type Port interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
}

// ErrOverflow is the error of Receive when news was lost, as nobody took it.
var ErrOverflow = errors.New("netlink: news was lost")

// answerMax bounds the wait for an answer: the kernel has sent it by the time
// that it has taken the question.
const answerMax = 10 * time.Second

// receiveMax is more than the kernel puts into one answer.
const receiveMax = 64 << 10

// Conn is a netlink socket with one question at a time. Its methods are safe
// for concurrent use.
type Conn struct {
	port Port

	mu  sync.Mutex
	seq uint32
	in  []byte
}

// Family is a part of the kernel that takes orders.
type Family struct {
	Name    string
	ID      uint16
	Version uint8
	MaxAttr uint32 // the last attribute that it knows
	Groups  map[string]uint32
}

// NewConn returns a Conn on a port.
func NewConn(port Port) *Conn { return &Conn{port: port, in: make([]byte, receiveMax)} }

// Dial opens a socket to the kernel.
func Dial() (*Conn, error) {
	fd, err := open()
	if err != nil {
		return nil, err
	}
	return NewConn(os.NewFile(uintptr(fd), "netlink")), nil
}

// Listen opens a socket that gets the news of a multicast group.
func Listen(group uint32) (*Conn, error) {
	fd, err := open()
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("netlink: join group %d: %w", group, err)
	}
	return NewConn(os.NewFile(uintptr(fd), "netlink")), nil
}

func open() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_GENERIC)
	if err != nil {
		return -1, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("netlink socket: %w", err)
	}
	return fd, nil
}

// Close closes the socket; a Receive that waits ends.
func (c *Conn) Close() error { return c.port.Close() }

// Family asks the kernel for a family. The error is syscall.ENOENT if the
// kernel has none of that name: its module is not loaded.
func (c *Conn) Family(name string) (Family, error) {
	control := Family{Name: "nlctrl", ID: unix.GENL_ID_CTRL, Version: 1}
	m, err := c.Do(control, unix.CTRL_CMD_GETFAMILY, AppendString(nil, unix.CTRL_ATTR_FAMILY_NAME, name))
	if err != nil {
		return Family{}, err
	}
	f := Family{Name: name, Groups: map[string]uint32{}}
	attrs, err := Attrs(m.Attrs)
	for _, a := range attrs {
		var v uint32
		switch a.Type {
		case unix.CTRL_ATTR_FAMILY_ID:
			f.ID, err = a.Uint16()
		case unix.CTRL_ATTR_VERSION:
			v, err = a.Uint32()
			f.Version = uint8(v)
		case unix.CTRL_ATTR_MAXATTR:
			f.MaxAttr, err = a.Uint32()
		case unix.CTRL_ATTR_MCAST_GROUPS:
			err = f.groups(a.Value)
		}
		if err != nil {
			break
		}
	}
	if err == nil && f.ID < unix.GENL_ID_CTRL {
		err = fmt.Errorf("%w: no number", ErrMalformed)
	}
	if err != nil {
		return Family{}, fmt.Errorf("netlink: family %s: %w", name, err)
	}
	return f, nil
}

// groups reads the list of multicast groups.
func (f *Family) groups(b []byte) error {
	items, err := Attrs(b)
	if err != nil {
		return err
	}
	for _, item := range items {
		attrs, err := Attrs(item.Value)
		if err != nil {
			return err
		}
		name, id := "", uint32(0)
		for _, a := range attrs {
			switch a.Type {
			case unix.CTRL_ATTR_MCAST_GRP_NAME:
				name = a.String()
			case unix.CTRL_ATTR_MCAST_GRP_ID:
				if id, err = a.Uint32(); err != nil {
					return err
				}
			}
		}
		f.Groups[name] = id
	}
	return nil
}

// Do gives a family a command and waits until it is done. It returns what the
// family answered, a zero Message if that was nothing. The error is a
// syscall.Errno if the family refused.
func (c *Conn) Do(f Family, command uint8, attrs []byte) (answer Message, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	question := Append(nil, Message{Type: f.ID, Flags: flagRequest | flagAck, Seq: c.seq, Command: command, Version: f.Version, Attrs: attrs})
	if _, err := c.port.Write(question); err != nil {
		return Message{}, fmt.Errorf("netlink: send to %s: %w", f.Name, err)
	}
	if err := c.port.SetReadDeadline(time.Now().Add(answerMax)); err != nil {
		return Message{}, fmt.Errorf("netlink: %w", err)
	}
	for {
		n, err := c.port.Read(c.in)
		if err != nil {
			return Message{}, fmt.Errorf("netlink: answer of %s: %w", f.Name, err)
		}
		for b := c.in[:n]; len(b) > 0; {
			var m Message
			if m, b, err = Decode(b); err != nil {
				return Message{}, fmt.Errorf("netlink: answer of %s: %w", f.Name, err)
			}
			switch {
			case m.Seq != c.seq: // late, of a question that was given up
			case m.Type == typeError && m.Errno != 0:
				return Message{}, syscall.Errno(m.Errno)
			case m.Type == typeError:
				return answer, nil
			case m.Type == f.ID:
				m.Attrs = append([]byte(nil), m.Attrs...)
				answer = m
			}
		}
	}
}

// Receive waits for news of the family in the group that is listened to.
func (c *Conn) Receive(f Family) (Message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		n, err := c.port.Read(c.in)
		if errors.Is(err, unix.ENOBUFS) {
			return Message{}, ErrOverflow
		}
		if err != nil {
			return Message{}, fmt.Errorf("netlink: news of %s: %w", f.Name, err)
		}
		// The kernel sends each message of a group by itself.
		m, _, err := Decode(c.in[:n])
		if err != nil {
			return Message{}, fmt.Errorf("netlink: news of %s: %w", f.Name, err)
		}
		if m.Type == f.ID {
			m.Attrs = append([]byte(nil), m.Attrs...)
			return m, nil
		}
	}
}
