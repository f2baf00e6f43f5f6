package blockdev

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// describe is the answer to a question for a family.
func describe(t *testing.T, id uint16, maxAttr uint32, groups map[string]uint32) netlink.Message {
	return message(unix.GENL_ID_CTRL, unix.CTRL_CMD_NEWFAMILY, encode(t, func(e *netlink.AttributeEncoder) {
		e.Uint16(unix.CTRL_ATTR_FAMILY_ID, id)
		e.Uint32(unix.CTRL_ATTR_VERSION, 1)
		e.Uint32(unix.CTRL_ATTR_MAXATTR, maxAttr)
		e.Nested(unix.CTRL_ATTR_MCAST_GROUPS, func(list *netlink.AttributeEncoder) error {
			for name, group := range groups {
				list.Nested(1, func(g *netlink.AttributeEncoder) error {
					g.String(unix.CTRL_ATTR_MCAST_GRP_NAME, name)
					g.Uint32(unix.CTRL_ATTR_MCAST_GRP_ID, group)
					return nil
				})
			}
			return nil
		})
	}))
}

func TestFamily(t *testing.T) {
	c, _ := newPeer(t, func(q netlink.Message) reply {
		if q.Header.Type != unix.GENL_ID_CTRL || q.Data[0] != unix.CTRL_CMD_GETFAMILY || q.Header.Flags != netlink.Request|netlink.Acknowledge {
			t.Errorf("question %+v", q)
		}
		name := ""
		if err := decode(q.Data[4:], func(d *netlink.AttributeDecoder) {
			if d.Type() == unix.CTRL_ATTR_FAMILY_NAME {
				name = d.String()
			}
		}); err != nil {
			t.Error(err)
		}
		switch name {
		case "nbd":
			return reply{answers: []netlink.Message{describe(t, 33, 10, map[string]uint32{"news": 12})}}
		case "broken":
			return reply{answers: []netlink.Message{message(unix.GENL_ID_CTRL, 1, encode(t, func(e *netlink.AttributeEncoder) { e.Uint8(unix.CTRL_ATTR_FAMILY_ID, 1) }))}}
		case "torn":
			return reply{answers: []netlink.Message{message(unix.GENL_ID_CTRL, 1, []byte{8, 0, 1})}}
		case "silent":
			return reply{}
		}
		return reply{errno: syscall.ENOENT}
	})
	defer c.Close()
	f, err := c.family("nbd")
	if err != nil || f.id != 33 || f.version != 1 || f.maxAttr != 10 || f.groups["news"] != 12 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := c.family("none"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	for _, name := range []string{"broken", "torn", "silent"} {
		if _, err := c.family(name); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The real kernel knows its own family, and that of nobody not.
func TestKernel(t *testing.T) {
	c, err := dialKernel()
	if err != nil {
		t.Skip("no netlink here: ", err)
	}
	defer c.Close()
	f, err := c.family("nlctrl")
	if err != nil || f.id != unix.GENL_ID_CTRL || f.groups["notify"] == 0 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := c.family("ovs-none"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	// What a question that was given up is answered later is not the answer to
	// the next.
	if _, err := c.conn.Send(questionForNobody(t), unix.GENL_ID_CTRL, netlink.Request|netlink.Acknowledge); err != nil {
		t.Fatal(err)
	}
	if f, err := c.family("nlctrl"); err != nil || f.id != unix.GENL_ID_CTRL {
		t.Errorf("%+v, %v", f, err)
	}
	if err := c.conn.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.next(f); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	news, err := listen(f.groups["notify"])
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, _, err := news.next(f)
		ended <- err
	}()
	if err := news.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, err := news.ask(controller, unix.CTRL_CMD_GETFAMILY, nil); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// What answers another question, done or refused, and what is of another family,
// is left aside.
func TestAsk(t *testing.T) {
	c, p := newPeer(t, func(q netlink.Message) reply {
		return reply{answers: []netlink.Message{message(50, 1, nil), message(33, q.Data[0], []byte{5, 0, 1, 0, 42, 0, 0, 0})}}
	})
	defer c.Close()
	p.say(message(33, 9, nil))
	p.say(acknowledge(1, 0))
	p.say(acknowledge(2, syscall.EINVAL))
	f := family{name: "nbd", id: 33, version: 1}
	if answer, err := c.ask(f, 7, nil); err != nil || len(answer) != 8 {
		t.Errorf("%x, %v", answer, err)
	}
	// Both in one read.
	p.answer = func(q netlink.Message) reply {
		m := message(33, 7, []byte{5, 0, 1, 0, 42, 0, 0, 0})
		m.Header.Sequence = q.Header.Sequence
		p.say(m, acknowledge(q.Header.Sequence, 0))
		return reply{}
	}
	if answer, err := c.ask(f, 7, nil); err != nil || len(answer) != 8 {
		t.Errorf("%x, %v", answer, err)
	}
	p.say(netlink.Message{Header: netlink.Header{Type: 33}, Data: []byte{1}})
	if _, err := c.ask(f, 7, nil); err == nil {
		t.Error("a message without a command is an answer")
	}
	if _, err := c.ask(f, 7, func(e *netlink.AttributeEncoder) { e.Bytes(1, make([]byte, 1<<16)) }); err == nil {
		t.Error("an attribute may be longer than its length can say")
	}
}

// A kernel that does not answer is waited for, but not for ever; its late answer
// is not that to the next question.
func TestAskUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := newPeer(t, func(netlink.Message) reply { return reply{} })
		defer c.Close()
		slow := &silent{peer: p}
		c.conn = slow.conn()
		begun := time.Now()
		if _, err := c.ask(controller, 7, nil); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != answerMax {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		p.say(acknowledge(slow.seq, syscall.EBUSY))
		p.answer = func(netlink.Message) reply {
			return reply{answers: []netlink.Message{message(unix.GENL_ID_CTRL, 7, nil)}}
		}
		slow.answers = true
		if _, err := c.ask(controller, 7, nil); err != nil {
			t.Error(err)
		}
	})
}

// Bytes of which no family, no device and no list can be made are errors.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 5, 0, 0, 0})
	f.Add([]byte{12, 0, 9, 0x80, 8, 0, 1, 0x80, 0, 0, 0, 0})
	f.Add([]byte{6, 0, 1, 0, 33, 0, 0, 0, 8, 0, 7, 0, 0, 0, 1, 0})
	f.Add([]byte{0, 0, 0, 0, 3, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if fam, err := decodeFamily("x", in); err == nil && fam.id < unix.GENL_ID_CTRL {
			t.Errorf("%+v", fam)
		}
		if _, ok, err := decodeIndex(in); ok && err != nil {
			t.Error(err)
		}
		if devices, err := decodeConnected(in); err != nil && len(devices) > 0 {
			t.Error(devices, err)
		}
	})
}
