package genl_test

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/blockdev/genl"
	"openvstorage/blockdev/genl/genltest"
)

// family is the answer to a question for a family.
func family(id uint16, name string, group uint32) genl.Message {
	b := genl.AppendString(nil, unix.CTRL_ATTR_FAMILY_NAME, name)
	b = genl.AppendUint16(b, unix.CTRL_ATTR_FAMILY_ID, id)
	b = genl.AppendUint32(b, unix.CTRL_ATTR_VERSION, 1)
	b = genl.AppendUint32(b, unix.CTRL_ATTR_MAXATTR, 10)
	g := genl.AppendUint32(genl.AppendString(nil, unix.CTRL_ATTR_MCAST_GRP_NAME, "news"), unix.CTRL_ATTR_MCAST_GRP_ID, group)
	b = genl.AppendNested(b, unix.CTRL_ATTR_MCAST_GROUPS, genl.AppendNested(nil, 1, g))
	return genl.Message{Type: unix.GENL_ID_CTRL, Command: unix.CTRL_CMD_NEWFAMILY, Version: 2, Attrs: b}
}

func TestFamily(t *testing.T) {
	port, _ := genltest.New(t, func(q genl.Message) genltest.Answer {
		if q.Type != unix.GENL_ID_CTRL || q.Command != unix.CTRL_CMD_GETFAMILY || q.Flags != unix.NLM_F_REQUEST|unix.NLM_F_ACK {
			t.Errorf("question %+v", q)
		}
		attrs, err := genl.Attrs(q.Attrs)
		if err != nil || len(attrs) != 1 || attrs[0].Type != unix.CTRL_ATTR_FAMILY_NAME {
			t.Errorf("question %+v, %v", attrs, err)
			return genltest.Answer{Errno: syscall.EINVAL}
		}
		switch name := attrs[0].String(); name {
		case "nbd":
			return genltest.Answer{Messages: []genl.Message{family(33, name, 12)}}
		case "broken":
			return genltest.Answer{Messages: []genl.Message{{Type: unix.GENL_ID_CTRL, Attrs: genl.AppendUint8(nil, unix.CTRL_ATTR_FAMILY_ID, 1)}}}
		case "silent":
			return genltest.Answer{}
		}
		return genltest.Answer{Errno: syscall.ENOENT}
	})
	c := genl.NewConn(port)
	defer c.Close()
	f, err := c.Family("nbd")
	if err != nil || f.ID != 33 || f.Version != 1 || f.MaxAttr != 10 || f.Groups["news"] != 12 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := c.Family("none"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	for _, name := range []string{"broken", "silent"} {
		if _, err := c.Family(name); !errors.Is(err, genl.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The real kernel knows its own family, and that of nobody not.
func TestKernel(t *testing.T) {
	c, err := genl.Dial()
	if err != nil {
		t.Skip("no netlink here: ", err)
	}
	defer c.Close()
	f, err := c.Family("nlctrl")
	if err != nil || f.ID != unix.GENL_ID_CTRL || f.Groups["notify"] == 0 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := c.Family("ovs-none"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	news, err := genl.Listen(f.Groups["notify"])
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := news.Receive(f)
		ended <- err
	}()
	if err := news.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// What answers another question, and what is of another family, is left aside.
func TestDo(t *testing.T) {
	port, peer := genltest.New(t, func(q genl.Message) genltest.Answer {
		return genltest.Answer{Messages: []genl.Message{{Type: 50, Command: 1}, {Type: q.Type, Command: q.Command, Attrs: genl.AppendUint32(nil, 1, 42)}}}
	})
	peer.Send(genl.Append(nil, genl.Message{Type: 33, Seq: 99, Command: 9}))
	c := genl.NewConn(port)
	defer c.Close()
	m, err := c.Do(genl.Family{Name: "nbd", ID: 33, Version: 1}, 7, nil)
	if err != nil || m.Command != 7 || len(m.Attrs) != 8 {
		t.Errorf("%+v, %v", m, err)
	}
	peer.Send([]byte("no message"))
	if _, err := c.Do(genl.Family{Name: "nbd", ID: 33}, 7, nil); !errors.Is(err, genl.ErrMalformed) {
		t.Error(err)
	}
}
