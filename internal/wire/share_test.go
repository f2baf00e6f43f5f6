package wire

import (
	"errors"
	"net"
	"testing"
	"time"
)

// One address, whose connections hold what they can, leaves half of the server to others.
func TestOneAddressLeavesHalfToOthers(t *testing.T) {
	for name, begin := range map[string]func() (b []byte){
		"memory": func() (b []byte) {
			for id := range uint64(4) { // one byte of each
				b = append(b, raw(head{kind: kindRequest, id: id, priority: Priority(id % 2), body: BodyMax, piece: 1}, 1)...)
			}
			return b
		},
		"requests": func() (b []byte) {
			for id := range uint64(1000) { // whose answers get no room
				b = append(b, raw(head{kind: kindRequest, id: id})...)
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := serve(t, l, ServerOptions{Memory: 256 << 20, Requests: 2000}, echo)
			limits, _ := Limits{}.withDefaults()
			p := preface{kind: hello, id: testIdentity(), text: "ovs-kv\x00"}
			limits.announce(&p)
			p.windows[0], p.windows[2] = smallWindowMin, smallWindowMin
			for range 8 {
				c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write(append(p.append(nil), begin()...)); err != nil {
					t.Fatal(err)
				}
			}
			for s.Stats().Handshakes > 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(300 * time.Millisecond)
			if _, err := dial(t, options(l)).Call(t.Context(), Request{Body: Wrap(nil, make([]byte, 4<<20))}); err != nil {
				t.Errorf("%+v, busy %v: %v", s.Stats(), errors.Is(err, ErrBusy), err)
			}
		})
	}
}
