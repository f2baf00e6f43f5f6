package blockdev

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// answerMax bounds the wait for an answer: the kernel has sent it by the time
// that it has taken the question.
const answerMax = 10 * time.Second

// errMalformed is matched by the error for an answer or for news that cannot be decoded.
var errMalformed = errors.New("malformed netlink message")

// family is a part of the kernel that takes orders.
type family struct {
	name    string
	id      uint16
	version uint8
	maxAttr uint32 // the last attribute that it knows
	groups  map[string]uint32
}

// controller is the family that knows the others.
var controller = family{name: "nlctrl", id: unix.GENL_ID_CTRL, version: 1}

// kernelConn is a socket of generic netlink. Its methods are safe for
// concurrent use; questions go one by one.
//
// The library's own Execute takes the first message for the answer. The kernel may
// answer an order twice: with what it made, and with an acknowledgement. And if a
// question was given up, its answer arrives while the next one waits. So kernelConn
// matches answers to questions by their number.
type kernelConn struct {
	mu   sync.Mutex
	conn *genetlink.Conn
}

// dialKernel opens a socket. The error says what could not be opened.
func dialKernel() (*kernelConn, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &kernelConn{conn: conn}, nil
}

// Close closes the socket; what waits for news on it ends.
func (c *kernelConn) Close() error { return c.conn.Close() }

// closed makes os.ErrClosed of what the library says of a socket that this process
// has closed.
func closed(err error) error {
	if call := (*os.SyscallError)(nil); errors.As(err, &call) && errors.Is(call, unix.EBADF) {
		return fmt.Errorf("%w: %w", os.ErrClosed, err)
	}
	return err
}

// attributes writes those of a question.
type attributes = func(*netlink.AttributeEncoder)

// ask gives a family a command and waits until it is done, at most answerMax. It
// returns the attributes that the family answered with, if any. The error is a
// syscall.Errno if the family refused.
func (c *kernelConn) ask(f family, command uint8, write attributes) (answer []byte, err error) {
	encoder := netlink.NewAttributeEncoder()
	if write != nil {
		write(encoder)
	}
	question := genetlink.Message{Header: genetlink.Header{Command: command, Version: f.version}}
	if question.Data, err = encoder.Encode(); err != nil {
		return nil, fmt.Errorf("netlink: question to %s: %w", f.name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sent, err := c.conn.Send(question, f.id, netlink.Request|netlink.Acknowledge)
	if err != nil {
		return nil, fmt.Errorf("to %s: %w", f.name, closed(err))
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(answerMax)); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	for {
		messages, heads, err := c.conn.Receive()
		if refusal := (*netlink.OpError)(nil); errors.As(err, &refusal) && refusal.Sequence != 0 {
			if refusal.Sequence != sent.Header.Sequence {
				continue // late, of a question that was given up
			}
			return nil, refusal.Err
		}
		if err != nil {
			return nil, fmt.Errorf("from %s: %w", f.name, closed(err))
		}
		for i, m := range messages {
			switch head := heads[i].Header; {
			case head.Sequence != sent.Header.Sequence: // late
			case head.Type == netlink.Error: // of no error, or Receive had returned it: done
				return answer, nil
			case head.Type == netlink.HeaderType(f.id):
				answer = m.Data
			}
		}
	}
}

// family asks the kernel for a family. The error matches syscall.ENOENT if the
// kernel has none of that name: its module is not loaded.
//
// The library's GetFamily is not used: it does not return the highest attribute number,
// and panics if there is no answer.
func (c *kernelConn) family(name string) (family, error) {
	answer, err := c.ask(controller, unix.CTRL_CMD_GETFAMILY, func(e *netlink.AttributeEncoder) {
		e.String(unix.CTRL_ATTR_FAMILY_NAME, name)
	})
	if err != nil {
		return family{}, err
	}
	f, err := decodeFamily(name, answer)
	if err != nil {
		return family{}, fmt.Errorf("netlink: family %s: %w", name, err)
	}
	return f, nil
}

func decodeFamily(name string, answer []byte) (family, error) {
	f := family{name: name, groups: map[string]uint32{}}
	err := decode(answer, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.CTRL_ATTR_FAMILY_ID:
			f.id = d.Uint16()
		case unix.CTRL_ATTR_VERSION:
			f.version = uint8(d.Uint32())
		case unix.CTRL_ATTR_MAXATTR:
			f.maxAttr = d.Uint32()
		case unix.CTRL_ATTR_MCAST_GROUPS:
			d.Nested(f.decodeGroups)
		}
	})
	if err == nil && f.id < unix.GENL_ID_CTRL {
		err = fmt.Errorf("%w: no number", errMalformed)
	}
	return f, err
}

// decodeGroups reads the list of multicast groups.
func (f *family) decodeGroups(list *netlink.AttributeDecoder) error {
	for list.Next() {
		list.Nested(func(d *netlink.AttributeDecoder) error {
			name, id := "", uint32(0)
			for d.Next() {
				switch d.Type() {
				case unix.CTRL_ATTR_MCAST_GRP_NAME:
					name = d.String()
				case unix.CTRL_ATTR_MCAST_GRP_ID:
					id = d.Uint32()
				}
			}
			f.groups[name] = id
			return nil // the library asks d for its error
		})
	}
	return nil
}

// decode calls each for every attribute.
func decode(b []byte, each func(*netlink.AttributeDecoder)) error {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	for d.Next() {
		each(d)
	}
	if err := d.Err(); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil
}

// listen opens a socket that gets the news of a multicast group.
func listen(group uint32) (*kernelConn, error) {
	c, err := dialKernel()
	if err != nil {
		return nil, err
	}
	if err := c.conn.JoinGroup(group); err != nil {
		_ = c.conn.Close()
		return nil, fmt.Errorf("group %d: %w", group, err)
	}
	return c, nil
}

// next waits for news of the family in the group that the socket listens to. lost says
// that the kernel has dropped some. It must not be called on a socket that asks.
func (c *kernelConn) next(f family) (news []genetlink.Message, lost bool, err error) {
	for len(news) == 0 {
		messages, heads, err := c.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			return nil, true, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("news of %s: %w", f.name, closed(err))
		}
		for i, m := range messages {
			if heads[i].Header.Type == netlink.HeaderType(f.id) {
				news = append(news, m)
			}
		}
	}
	return news, false, nil
}
