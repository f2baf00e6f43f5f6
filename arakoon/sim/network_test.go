package sim

import (
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// weather is how the network treats messages.
type weather struct {
	lose, double, late float64       // how likely each is
	echo               float64       // that a message comes once more, seconds later, maybe to the next life of a member
	least, most        time.Duration // of the way of a message
	lateness           time.Duration // at most, on top, if it is late
}

// fair is the weather of a quiet network; messages may overtake each other even then.
var fair = weather{double: 0.01, late: 0.01, echo: 0.02, least: 100 * time.Microsecond, most: 2 * time.Millisecond, lateness: 50 * time.Millisecond}

// echoMost is how late a message may come once more.
const echoMost = 8 * time.Second

type direction struct{ from, to uint64 }

// network carries messages between members, as bytes: no two members share memory.
type network struct {
	watch *watch

	mu      sync.Mutex
	rng     *rand.Rand
	weather weather
	cut     map[direction]int // cuts that hold
	members map[uint64]*life  // those that run
	closed  bool
	sent    int
}

func newNetwork(seed uint64, w *watch) *network {
	return &network{
		watch: w, rng: rand.New(rand.NewPCG(seed, 1)), weather: fair,
		cut: map[direction]int{}, members: map[uint64]*life{},
	}
}

// plug makes messages for a member reach this life of it.
func (n *network) plug(id uint64, l *life) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members[id] = l
}

// unplug ends that, unless another life has taken its place.
func (n *network) unplug(id uint64, l *life) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.members[id] == l {
		delete(n.members, id)
	}
}

// sever cuts directions until the function that it returns is called.
func (n *network) sever(list []direction) (mend func()) {
	add := func(by int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, d := range list {
			n.cut[d] += by
		}
	}
	add(1)
	return sync.OnceFunc(func() { add(-1) })
}

// change changes the weather, and returns what it was.
func (n *network) change(w weather) (was weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was, n.weather = n.weather, w
	return was
}

// reaches reports whether a request from one member reaches another and its answer
// comes back.
func (n *network) reaches(from, to uint64) (*life, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.members[to]
	return l, l != nil && n.cut[direction{from, to}] == 0 && n.cut[direction{to, from}] == 0
}

func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
}

// send takes messages from a member; each gets there in its own time, or never.
func (n *network) send(from uint64, messages []*pb.Message) {
	for _, m := range messages {
		n.watch.sent(m)
		b, err := proto.Marshal(m)
		if err != nil {
			n.watch.violation("member %d sends a message that cannot be encoded: %v", from, err)
			continue
		}
		n.mu.Lock()
		d := direction{from, m.GetTo()}
		for range n.copiesLocked(d) {
			n.sent++
			time.AfterFunc(n.delayLocked(), func() { n.arrive(d, b) })
		}
		if n.rng.Float64() < n.weather.echo {
			time.AfterFunc(time.Duration(n.rng.Int64N(int64(echoMost))), func() { n.arrive(d, b) })
		}
		n.mu.Unlock()
	}
}

func (n *network) copiesLocked(d direction) int {
	switch w := n.weather; {
	case n.closed || n.cut[d] > 0 || n.rng.Float64() < w.lose:
		return 0
	case n.rng.Float64() < w.double:
		return 2
	}
	return 1
}

func (n *network) delayLocked() time.Duration {
	w := n.weather
	delay := w.least + time.Duration(n.rng.Int64N(int64(w.most-w.least)+1))
	if n.rng.Float64() < w.late {
		delay += time.Duration(n.rng.Int64N(int64(w.lateness) + 1))
	}
	return delay
}

// arrive delivers a message, unless the way was cut meanwhile.
func (n *network) arrive(d direction, b []byte) {
	n.mu.Lock()
	l := n.members[d.to]
	if n.closed || n.cut[d] > 0 {
		l = nil
	}
	n.mu.Unlock()
	if l == nil {
		return
	}
	m := new(pb.Message)
	if err := proto.Unmarshal(b, m); err != nil {
		n.watch.violation("a message to member %d cannot be decoded: %v", d.to, err)
		return
	}
	l.gate.wait()
	if n := l.running(); n != nil {
		_ = n.Step(m) // only a node that has ended refuses it
	}
}

// port is a life's way to the network. It implements arakoon.Transport.
type port struct {
	net  *network
	life *life
}

// Send waits while the member is paused: whoever calls it stops then, ticks and all, as
// the whole process would at SIGSTOP. What a life sends after its end is lost.
func (p port) Send(messages []*pb.Message) {
	p.life.gate.wait()
	p.life.still(func() { p.net.send(p.life.id, messages) })
}

// gate is passed while it is open.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil while it is open
	gone bool
}

func (g *gate) wait() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil && !g.gone {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// remove opens the gate for ever.
func (g *gate) remove() {
	g.mu.Lock()
	g.gone = true
	g.mu.Unlock()
	g.open()
}
