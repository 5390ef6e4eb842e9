// The threads of a block of CUDA threads as fibers: each runs until it waits at a barrier or ends.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {

using Site = std::source_location;

constexpr unsigned kLanes = 32;
constexpr size_t kStackBytes = 256 << 10;

// A place in the program to go on from, on a stack of its own.
struct Place {
  ucontext_t context;
  jmp_buf jump;
  bool started = false;

  // From here to `next`; returns when somebody goes on here. swapcontext alone would do, but asks
  // the system for each switch, which takes most of the time. Sanitizers want nothing else.
  void go_to(Place& next) {
#ifdef __SANITIZE_ADDRESS__
    swapcontext(&context, &next.context);
#else
    if (_setjmp(jump)) return;
    if (next.started) _longjmp(next.jump, 1);
    next.started = true;
    swapcontext(&context, &next.context);
#endif
  }
};

struct Fiber {
  Place place;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* sanitizer_stack = nullptr;
};

// Threads that have to meet: those of a block, or of a warp.
struct Barrier {
  unsigned members = 0;  // that have not ended
  std::vector<unsigned> waiting;
  Site site;
  int votes = 0, result = 0;
  uint64_t values[kLanes] = {}, results[kLanes] = {};
};

class Scheduler {
 public:
  // Runs `body` on each thread; `enter` is told which one goes on.
  void run(
      unsigned threads, unsigned seed, std::function<void()> body,
      std::function<void(unsigned)> enter) {
    body_ = std::move(body);
    while (fibers_.size() < threads) fibers_.push_back(std::make_unique<Fiber>());
    warps_.assign(threads / kLanes, Barrier{kLanes});
    block_ = Barrier{threads};
    error_.clear();
    ready_.resize(threads);
    std::iota(ready_.begin(), ready_.end(), 0u);
    for (unsigned thread = 0; thread < threads; ++thread) make(*fibers_[thread]);
    random_.seed(seed);
    shuffle_all_ = random_() % 2;
    std::shuffle(ready_.begin(), ready_.end(), random_);
    while (!ready_.empty() && error_.empty()) {
      current_ = take();
      enter(current_);
      resume(*fibers_[current_]);
    }
    if (error_.empty() && block_.members > 0) fail("threads wait for each other", Site::current());
    if (!error_.empty()) throw std::runtime_error("CUDA on the CPU: " + error_);
  }

  // How many threads vote yes.
  int block_barrier(bool vote, Site site) {
    block_.votes += vote;
    wait(block_, site);
    return block_.result;
  }

  // The values of all lanes.
  const uint64_t* warp_barrier(unsigned mask, uint64_t value, Site site) {
    Barrier& warp = warps_[current_ / kLanes];
    if (mask != 0xffffffffu || warp.members != kLanes) fail("not the whole warp is here", site);
    warp.values[current_ % kLanes] = value;
    wait(warp, site);
    return warp.results;
  }

 private:
  // Either any thread that can go on, or the one that could so last: then some warps run far ahead.
  unsigned take() {
    if (shuffle_all_) std::swap(ready_[random_() % ready_.size()], ready_.back());
    const unsigned thread = ready_.back();
    ready_.pop_back();
    return thread;
  }

  void wait(Barrier& barrier, Site site) {
    if (barrier.waiting.empty()) barrier.site = site;
    if (barrier.site.line() != site.line() || barrier.site.column() != site.column()) {
      fail("threads wait in different lines, one in " + std::to_string(barrier.site.line()), site);
    }
    barrier.waiting.push_back(current_);
    release_if_complete(barrier);
    suspend(false);
  }

  void release_if_complete(Barrier& barrier) {
    if (barrier.waiting.empty() || barrier.waiting.size() < barrier.members) return;
    barrier.result = barrier.votes;
    barrier.votes = 0;
    std::copy_n(barrier.values, kLanes, barrier.results);
    std::shuffle(barrier.waiting.begin(), barrier.waiting.end(), random_);
    ready_.insert(ready_.end(), barrier.waiting.begin(), barrier.waiting.end());
    barrier.waiting.clear();
  }

  void fail(const std::string& what, Site site) {
    if (!error_.empty()) return;
    error_ = what + " (" + site.file_name() + ":" + std::to_string(site.line()) + ")";
    ready_.clear();
  }

  void make(Fiber& fiber) {
    ucontext_t& context = fiber.place.context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, &Scheduler::start, 0);
    fiber.place.started = false;
    fiber.sanitizer_stack = nullptr;
  }

  static void start();

  void body_and_end() {
    entered(nullptr);
    body_();
    Barrier& warp = warps_[current_ / kLanes];
    --warp.members;
    --block_.members;
    if (!warp.waiting.empty()) fail("a thread ended, its warp waits for it", warp.site);
    release_if_complete(block_);
    suspend(true);
  }

  void resume(Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&sanitizer_stack_, fiber.stack.get(), kStackBytes);
#endif
    host_.go_to(fiber.place);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(sanitizer_stack_, nullptr, nullptr);
#endif
  }

  void suspend(bool for_good) {
    Fiber& fiber = *fibers_[current_];
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(
        for_good ? nullptr : &fiber.sanitizer_stack, host_stack_, host_stack_bytes_);
#endif
    (void)for_good;
    fiber.place.go_to(host_);
    entered(fiber.sanitizer_stack);
  }

  // A fiber runs (again). The first one to do so learns where the host's stack is.
  void entered([[maybe_unused]] void* sanitizer_stack) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(sanitizer_stack, &host_stack_, &host_stack_bytes_);
#endif
  }

  std::function<void()> body_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Barrier> warps_;
  Barrier block_;
  std::vector<unsigned> ready_;
  unsigned current_ = 0;
  bool shuffle_all_ = false;
  std::mt19937 random_;
  std::string error_;
  Place host_{.started = true};
  [[maybe_unused]] void* sanitizer_stack_ = nullptr;
  [[maybe_unused]] const void* host_stack_ = nullptr;
  [[maybe_unused]] size_t host_stack_bytes_ = 0;
};

inline Scheduler scheduler;

inline void Scheduler::start() { scheduler.body_and_end(); }

}  // namespace cuda_on_cpu
