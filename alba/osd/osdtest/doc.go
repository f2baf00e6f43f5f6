// Package osdtest is for tests of OSDs and with OSDs. [Run] is the conformance suite
// that every OSD must pass, [Memory] is a model of an OSD in memory, and [Faulty] is a
// decorator that makes an OSD fail, wait or lie.
package osdtest
