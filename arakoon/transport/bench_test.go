package transport

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// echoing answers each append with an acknowledgement.
type echoing struct {
	t   *Transport
	got chan struct{}
}

func (e *echoing) ReportUnreachable(uint64) {}

func (e *echoing) Step(m *pb.Message) error {
	if m.GetType() == pb.MsgApp {
		e.t.Send([]*pb.Message{{Type: new(pb.MsgAppResp), From: new(m.GetTo()), To: new(m.GetFrom()), Term: new(m.GetTerm()), Index: new(m.GetIndex())}})
		return nil
	}
	e.got <- struct{}{}
	return nil
}

func benchPair(b *testing.B, kind string) (one *Transport, got chan struct{}) {
	n := newNetwork(b, kind, 2, nil)
	got = make(chan struct{}, 4096)
	for _, h := range n.hosts {
		h.groups.Remove(h.t)
		if err := h.groups.Add(h.t, &echoing{h.t, got}, nil); err != nil {
			b.Fatal(err)
		}
	}
	one = n.hosts[0].t
	for range 2 {
		one.stream(2, ordered)
		for !one.stream(2, ordered).up.Load() {
			yield()
		}
	}
	one.Send([]*pb.Message{appendOf(1, 2, 1, 256)})
	<-got
	return one, got
}

// cpu is what the process has used of it.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAppend is an append and its acknowledgement, beside 256 bytes there and back by a
// bare socket.
func BenchmarkAppend(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err == nil {
				defer c.Close()
				_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 256))
			}
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		p, was := make([]byte, 256), cpu()
		for b.Loop() {
			if _, err := c.Write(p); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, p); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((cpu()-was).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
	for _, kind := range []string{"tcp", "tls"} {
		for _, size := range []int{256, 1 << 20} {
			for _, flight := range []int{1, 16} {
				b.Run(fmt.Sprintf("%s/%d/%d", kind, size, flight), func(b *testing.B) {
					one, got := benchPair(b, kind)
					b.SetBytes(int64(size))
					m := []*pb.Message{appendOf(1, 2, 1, size)}
					flying, was := 0, cpu()
					for b.Loop() {
						if flying == flight {
							<-got
							flying--
						}
						one.Send(m)
						flying++
					}
					for range flying {
						<-got
					}
					b.ReportMetric(float64((cpu()-was).Nanoseconds())/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
}

// BenchmarkIdle is what 4 groups of three members, all led by one host, cost in heartbeats
// every 100 ms: CPU of all three hosts, for a second of it. One run takes a second.
func BenchmarkIdle(b *testing.B) {
	for _, kind := range []string{"tcp", "tls"} {
		b.Run(kind, func(b *testing.B) {
			var groups []*network
			for range 4 {
				n := newNetwork(b, kind, 3, nil)
				groups = append(groups, n)
				n.hosts[0].t.Send([]*pb.Message{beat(1, 2, 0), beat(1, 3, 0)})
				n.hosts[1].t.Send([]*pb.Message{beat(2, 1, 0)})
				n.hosts[2].t.Send([]*pb.Message{beat(3, 1, 0)})
				for range 2 {
					n.hosts[0].t.stream(2, ordered)
					n.hosts[0].t.stream(3, ordered)
				}
			}
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			time.Sleep(500 * time.Millisecond)
			was := cpu()
			for b.Loop() {
				for range 10 {
					<-tick.C
					for _, n := range groups {
						n.hosts[0].t.Send([]*pb.Message{beat(1, 2, 0), beat(1, 3, 0)})
						n.hosts[1].t.Send([]*pb.Message{beat(2, 1, 0)})
						n.hosts[2].t.Send([]*pb.Message{beat(3, 1, 0)})
					}
				}
			}
			b.ReportMetric(float64((cpu()-was).Microseconds())/float64(b.N), "cpu-us/s")
		})
	}
}
