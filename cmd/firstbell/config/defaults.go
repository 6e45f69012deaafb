package config

import (
	"path/filepath"
	"time"
)

// memoryDefault is what the cache may take unless the file says it.
const memoryDefault Size = 512 << 20

// defaults fills in what the file leaves out and this package knows. What is
// still zero afterwards is for the packages that are configured by it.
func (c *Config) defaults() {
	if c.Cache.Memory == 0 {
		c.Cache.Memory = memoryDefault
	}
	if c.Log.Access == nil {
		yes := true
		c.Log.Access = &yes
	}
	if c.Listen.Drain == 0 {
		c.Listen.Drain = 30 * time.Second
	}
	c.Clients.PerClient.defaults()
	c.Clients.PerSchool.defaults()
	for _, o := range c.Origins {
		if o != nil {
			o.defaults()
		}
	}
	for _, r := range c.Routes {
		if r != nil {
			r.defaults()
		}
	}
	if a := c.Attendance; a != nil && a.Journal != "" {
		a.defaults()
	}
}

func (r *Route) defaults() {
	if r.Path == "" {
		r.Path = "/*"
	}
	if r.Cache != nil && r.Cache.Compress == nil {
		yes := true
		r.Cache.Compress = &yes
	}
}

func (o *Origin) defaults() {
	if o.Concurrency.Max == 0 {
		o.Concurrency.Max = 256
	}
	if o.Concurrency.Queue == nil {
		queue := 8 * o.Concurrency.Max
		o.Concurrency.Queue = &queue
	}
	if o.Concurrency.Wait == 0 {
		o.Concurrency.Wait = 5 * time.Second
	}
	if o.Health != nil && o.Health.Every == 0 {
		o.Health.Every = 2 * time.Second
	}
}

func (a *Attendance) defaults() {
	if a.Store == "" {
		a.Store = "sqlite:" + filepath.Join(filepath.Dir(a.Journal), "attendance.db")
	}
	if a.Grace == 0 {
		a.Grace = 15 * time.Minute
	}
	if a.Retention == 0 {
		a.Retention = 30 * 24 * time.Hour
	}
	if a.Disk.Max == 0 {
		a.Disk.Max = 20 << 30
	}
	if a.Disk.Reserve == nil {
		a.Disk.Reserve = new(Size(256 << 20))
	}
	if a.Signing.Keys == "" {
		a.Signing.Keys = filepath.Join(a.Journal, "keys")
	}
	if a.Signing.Rotate == nil {
		a.Signing.Rotate = new(365 * 24 * time.Hour)
	}
	for i := range a.Sinks {
		a.Sinks[i].defaults()
	}
}
