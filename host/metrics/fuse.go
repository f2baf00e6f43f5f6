package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/fusefs"
	"openvstorage/fusefs/transport"
)

// Mount is the counters of a mount as metrics. Without a mount they are 0.
type Mount struct{ FS *fusefs.FS }

func fuseDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ovs_fuse_"+name, help, labels, nil)
}

var (
	fuseRequests     = fuseDesc("requests_total", "Requests received.", "way")
	fuseWaited       = fuseDesc("waited_total", "Requests that were handed to a goroutine of their own.")
	fuseWaiting      = fuseDesc("waiting", "Requests with a goroutine of their own now.")
	fuseWaitingMax   = fuseDesc("waiting_limit", "Requests that may wait: entries of the rings, or by the device.")
	fuseWaitingBytes = fuseDesc("waiting_bytes", "Bytes of waiting requests that came by the device.")
	fuseWaitingLimit = fuseDesc("waiting_bytes_limit", "Bytes that those may have.")
	fuseStalled      = fuseDesc("stalled_readers", "Readers of the device that wait for room, and read nothing; of two, or of one beside rings.")
	fuseQueues       = fuseDesc("ring_queues", "Rings that bring requests; 0: all come by the device.")
	fuseRingBytes    = fuseDesc("ring_bytes", "Room for requests in the rings; memory is used as far as they were touched.")
)

// Describe implements prometheus.Collector.
func (Mount) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{fuseRequests, fuseWaited, fuseWaiting, fuseWaitingMax, fuseWaitingBytes, fuseWaitingLimit, fuseStalled, fuseQueues, fuseRingBytes} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c Mount) Collect(out chan<- prometheus.Metric) {
	var s transport.Stats
	if c.FS != nil {
		s = c.FS.Stats()
	}
	metric := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	metric(fuseRequests, prometheus.CounterValue, float64(s.Device), "device")
	metric(fuseRequests, prometheus.CounterValue, float64(s.Ring), "ring")
	metric(fuseWaited, prometheus.CounterValue, float64(s.Waited))
	metric(fuseWaiting, prometheus.GaugeValue, float64(s.Waiting))
	metric(fuseWaitingMax, prometheus.GaugeValue, float64(s.WaitingMax))
	metric(fuseWaitingBytes, prometheus.GaugeValue, float64(s.WaitingBytes))
	metric(fuseWaitingLimit, prometheus.GaugeValue, float64(s.WaitingLimit))
	metric(fuseStalled, prometheus.GaugeValue, float64(s.Stalled))
	metric(fuseQueues, prometheus.GaugeValue, float64(s.Queues))
	metric(fuseRingBytes, prometheus.GaugeValue, float64(s.RingBytes))
}
