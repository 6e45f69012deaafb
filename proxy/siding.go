package proxy

import "time"

// canStepAside reports whether the exchange may wait for its client in the
// siding.
func (h *h1) canStepAside() bool {
	return h.conn.parks && !h.stays && !h.waited && h.lived == nil
}

// stepAside has an exchange whose client is to be waited for do so without a
// goroutine. One that does not wait is over.
func (h *h1) stepAside() fate {
	for h.taking || h.rest.body != nil {
		c, until := h.conn, time.Now()
		if h.taking {
			until = until.Add(h.upload.patience)
		} else {
			until = until.Add(c.patience())
			c.writeBy = time.Time{} // who writes next sets it
			h.out1 = nil            // who waits holds as little as it can
		}
		if c.door.siding.wait(h, h.taking, until) {
			return later
		}
		h.stays = true
		h.goOn(nil)
	}
	return h.finish()
}

// resumed goes on with an exchange that waited in the siding, until err.
func (h *h1) resumed(err error) fate {
	if !h.taking && timedOut(err) {
		if err = h.conn.wroteSome(0, err); err == nil {
			return h.stepAside() // it has more time
		}
	}
	h.goOn(err)
	return h.stepAside()
}

// goOn goes on with the content that is still to come, or with the answer, unless
// the client is given up because of err.
func (h *h1) goOn(err error) {
	defer h.recovered()
	if !h.taking {
		h.err = err
		h.sendRest(nil)
		return
	}
	h.taking = false // a panic is the end
	h.upload.waited(err)
	h.conn.door.proxy.takeIn(&h.exchange, h.passed)
}
