package host

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/alba/proxy"
	"openvstorage/backend"
	"openvstorage/host/cluster"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// offered is the backend as this process offers it to others: on a unix socket to whoever may
// open it, and on the cluster's addresses to hosts that the table of package trust names.
type offered struct {
	server  *proxy.Server
	store   atomic.Pointer[backend.Store] // once it is open
	cluster atomic.Pointer[cluster.Host]  // once it is bound
	wire    *wire.Server                  // of the socket, if there is one
	socket  net.Listener
}

// listenProxy makes what offers the backend, and takes its socket. A host that has joined has no
// backend.
func (d *daemon) listenProxy(ctx context.Context) (err error) {
	if d.joins() {
		if d.opt.Proxy != "" {
			return fmt.Errorf("--proxy: a host that has joined a cluster has no backend in this release: leave it out")
		}
		return nil
	}
	o := &offered{}
	open := func() (backend.Store, bool) {
		if s := o.store.Load(); s != nil {
			return *s, true
		}
		return nil, false
	}
	if o.server, err = proxy.NewServer(proxy.ServerOptions{ID: d.dir.ID, Open: open}); err != nil {
		return err
	}
	d.proxy = o
	if d.opt.Proxy == "" {
		return nil
	}
	service := o.server.Service(proxy.Anyone) // whoever may open the socket
	o.wire, err = wire.NewServer(wire.ServerOptions{
		// On a socket of this machine nothing tells clusters apart but the store that is named.
		Services: map[string]*wire.Service{proxy.Service: &service}, Identity: func() wire.Identity { return wire.Identity{} },
		Refused: func(_ net.Addr, why error) {
			d.logger.Warn("proxy: a connection was refused", "socket", d.opt.Proxy, "err", why)
		},
	})
	if err != nil {
		return err
	}
	if o.socket, err = d.listenUnix(ctx, d.opt.Proxy); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	return nil
}

// shares reports whether other processes are to use the backend: by the socket, or by the
// addresses of the cluster.
func (d *daemon) shares() bool { return d.opt.Proxy != "" || d.hosts != nil }

// service is what the cluster's addresses offer: nothing to a host before this one is bound.
func (o *offered) service() *wire.Service {
	s := o.server.Service(func(ctx context.Context, p *wire.Peer) (func(uint16) error, error) {
		h := o.cluster.Load()
		if h == nil {
			return nil, fmt.Errorf("this host has not come up yet")
		}
		if err := h.Admit(ctx, p); err != nil {
			return nil, err
		}
		may := func(op uint16) error { return h.Allow(p, proxyCall(op), trust.Nothing) }
		return may, h.Allow(p, "proxy/read", trust.Nothing)
	})
	return &s
}

// proxyCall is the row of the table of package trust for an operation.
func proxyCall(op uint16) string {
	if proxy.Writes(op) {
		return "proxy/write"
	}
	return "proxy/read"
}

// serveProxy begins to answer with the backend. One that is in another process is offered there.
func (d *daemon) serveProxy() error {
	o := d.proxy
	if _, ok := d.host.backend.(*proxy.Client); ok {
		if o.socket != nil {
			return fmt.Errorf("--proxy: the backend of %s is in another process: give --proxy there", d.dir.Path)
		}
		return nil
	}
	store := backend.Store(d.host.backend)
	o.store.Store(&store)
	if o.wire != nil {
		d.run("the proxy on "+show(o.socket.Addr()), func() error { return o.wire.Serve(o.socket) })
	}
	return nil
}

// announced is the line about the proxy.
func (o *offered) announced() []Service {
	if o == nil || o.socket == nil {
		return nil
	}
	return []Service{{"proxy", show(o.socket.Addr())}}
}

// close ends the use of the backend by others: those who have begun may end within ctx.
func (o *offered) close(ctx context.Context) (err error) {
	if o == nil {
		return nil
	}
	if o.wire != nil {
		err = o.wire.Close(ctx)
	}
	if o.socket != nil {
		_ = o.socket.Close() // closing it twice is harmless
	}
	o.server.Close(ctx)
	return err
}

// What others do by the proxy, of all namespaces together: `ovs alba proxy` tells of each.
var (
	proxyCalls   = prometheus.NewDesc("ovs_proxy_calls_total", "Calls by other processes.", []string{"kind"}, nil)
	proxyErrors  = prometheus.NewDesc("ovs_proxy_errors_total", "Calls of other processes that failed.", []string{"kind"}, nil)
	proxyBytes   = prometheus.NewDesc("ovs_proxy_bytes_total", "Bytes of objects that other processes read and put.", []string{"kind"}, nil)
	proxySeconds = prometheus.NewDesc("ovs_proxy_seconds_total", "Time that calls of other processes took, all together.", []string{"kind"}, nil)
)

// Describe implements prometheus.Collector.
func (o *offered) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(o, out) }

// Collect implements prometheus.Collector.
func (o *offered) Collect(out chan<- prometheus.Metric) {
	var read, write, other proxy.Counts
	for _, s := range o.server.Stats() {
		read.Add(&s.Read)
		write.Add(&s.Write)
		other.Add(&s.Other)
	}
	for kind, c := range map[string]*proxy.Counts{"read": &read, "write": &write, "other": &other} {
		total := func(d *prometheus.Desc, v float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, kind)
		}
		total(proxyCalls, float64(c.Calls))
		total(proxyErrors, float64(c.Errors))
		total(proxyBytes, float64(c.Bytes))
		total(proxySeconds, float64(c.Micros)/1e6)
	}
}
