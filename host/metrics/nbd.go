package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/nbd"
)

// NBD is the counters of an NBD server as metrics.
type NBD struct{ Server *nbd.Server }

func nbdDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ovs_nbd_"+name, help, labels, nil)
}

var (
	nbdAccepted    = nbdDesc("connections_accepted_total", "Connections taken.")
	nbdRefused     = nbdDesc("connections_refused_total", "Connections over the limit.")
	nbdFailed      = nbdDesc("connections_failed_total", "Connections that ended by an error.")
	nbdHungUp      = nbdDesc("connections_hung_up_total", "Connections of block devices that the kernel has given up.")
	nbdOutliving   = nbdDesc("connections_outliving", "Connections of block devices that wait for the end of one that was given up, now.")
	nbdConnections = nbdDesc("connections", "Connections now.")
	nbdRequests    = nbdDesc("requests_total", "Requests received.", "command")
	nbdRead        = nbdDesc("read_bytes_total", "Bytes asked for.")
	nbdWritten     = nbdDesc("written_bytes_total", "Bytes received in writes.")
	nbdErrors      = nbdDesc("errors_total", "Requests answered with an error.")
	nbdRounds      = nbdDesc("rounds_total", "Groups of requests answered together.")
	nbdInFlight    = nbdDesc("in_flight", "Requests that wait for something now.")
	nbdBuffers     = nbdDesc("buffer_bytes", "Payload and socket buffers in use now.")
	nbdIdle        = nbdDesc("idle_buffer_bytes", "Free buffers kept for later requests.")
	nbdHeld        = nbdDesc("held_bytes", "All memory that is held for clients now: buffers in use and free, connections, workers.")
	nbdStacks      = nbdDesc("stack_bytes", "About what the stacks of their goroutines take.")

	nbdClientsLimit = nbdDesc("connections_limit", "Connections there may be.")
	nbdMemoryLimit  = nbdDesc("request_bytes_limit", "Bytes that all connections may hold, but for what each may always have.")
	nbdMemory       = nbdDesc("request_bytes", "Bytes of buffers that requests under way and replies not taken hold now.")
)

// Describe implements prometheus.Collector.
func (NBD) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		nbdAccepted, nbdRefused, nbdFailed, nbdHungUp, nbdOutliving, nbdConnections, nbdRequests, nbdRead, nbdWritten,
		nbdErrors, nbdRounds, nbdInFlight, nbdBuffers, nbdIdle, nbdHeld, nbdStacks, nbdClientsLimit, nbdMemoryLimit, nbdMemory,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c NBD) Collect(out chan<- prometheus.Metric) {
	s := c.Server.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	counter(nbdAccepted, s.Accepted)
	counter(nbdRefused, s.Refused)
	counter(nbdFailed, s.Failed)
	counter(nbdHungUp, s.HungUp)
	gauge(nbdOutliving, s.Outliving)
	gauge(nbdConnections, s.Connections)
	for i, n := range s.Requests {
		counter(nbdRequests, n, nbd.Command(i).String())
	}
	counter(nbdRead, s.ReadBytes)
	counter(nbdWritten, s.WrittenBytes)
	counter(nbdErrors, s.Errors)
	counter(nbdRounds, s.Rounds)
	gauge(nbdInFlight, s.InFlight)
	gauge(nbdBuffers, s.BufferBytes)
	gauge(nbdIdle, s.IdleBytes)
	gauge(nbdHeld, s.Held)
	gauge(nbdStacks, s.Stacks)
	limits := c.Server.Limits()
	gauge(nbdClientsLimit, int64(limits.Connections))
	gauge(nbdMemoryLimit, limits.ServerBytes)
	gauge(nbdMemory, s.RequestBytes)
}
