// The server's side of the classes given to BaseManager::register_type().
#include "manager/server_registry.hpp"

#include <multihull/detail/manager_method.hpp>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

namespace multihull {

namespace detail {

namespace {

[[noreturn]] void refuse_keyword(const std::string& what, const char* how, const std::string& name) {
    throw TypeError(what + " got " + how + " '" + name + "'");
}

// The arguments in the order of the parameters, as Python's calls may give some by name. Throws TypeError as Python does.
std::vector<Object> bound(Call& call, const std::vector<std::string>& parameters, std::size_t count) {
    const std::string what = std::string(call.method) + "()";
    const std::size_t named = call.kwargs.is_none() ? 0 : call.kwargs.size();
    if (call.args.size() + named != count) {
        throw TypeError(what + " takes " + std::to_string(count) + (count == 1 ? " argument" : " arguments") +
                        ", but " + std::to_string(call.args.size() + named) + " were given");
    }
    std::vector<Object> args = std::move(call.args);
    const std::size_t by_place = args.size();
    args.resize(count);
    std::vector<bool> given(count - by_place);
    for (std::size_t i = 0; i < named; ++i) {
        const std::string& name = call.kwargs.elements()[i].as_str();
        const auto place = std::ranges::find(parameters, name);
        const auto index = static_cast<std::size_t>(place - parameters.begin());
        if (place == parameters.end() || index >= count) {
            refuse_keyword(what, "an unexpected keyword argument", name);
        }
        if (index < by_place || given[index - by_place]) {
            refuse_keyword(what, "multiple values for argument", name);
        }
        given[index - by_place] = true;
        args[index] = call.kwargs.values()[i];
    }
    return args;
}

/// An instance of a class of the program's.
class Instance final : public Referent {
public:
    Instance(std::shared_ptr<const RegisteredType> type, std::vector<Object> args, const CallContext& context)
        : type_(std::move(type)) {
        keep_proxies_of(args, context);
        instance_ = type_->constructor.make(args);
    }

    Reply call(Call& call) override {
        const auto method = std::ranges::find(type_->methods, call.method, &ManagerMethod::name);
        if (method == type_->methods.end()) {
            throw PythonException("AttributeError",
                                  "'" + type_->name + "' object has no attribute '" + std::string(call.method) + "'");
        }
        std::vector<Object> args = bound(call, method->parameters, method->parameter_count);
        keep_proxies_of(args, call.context);
        std::unique_lock lock(mutex_, std::defer_lock);
        if (!type_->thread_safe) lock.lock();
        return method->call(instance_.get(), args, call.context);
    }
    std::string repr() override { return "<" + type_->name + " object>"; }
    Object value() override {
        throw TypeError("a " + type_->name + " has no value that could be copied: call its methods");
    }
    void visit(const std::function<void(const Object&)>& visitor) override {
        const std::lock_guard lock(proxies_mutex_);
        for (const auto& [ident, proxy] : proxies_) visitor(proxy);
    }

private:
    // Nobody but the class knows what it has kept of its arguments, and a call may be under way: it may have kept each proxy.
    void keep_proxies_of(const std::vector<Object>& args, const CallContext& context) {
        if (!type_->keeps_proxies) return;
        forget_ended(context);
        for (const Object& arg : args) {
            for_each_proxy(arg, [this](const Object& proxy) {
                const std::lock_guard lock(proxies_mutex_);
                proxies_.emplace(ident_of(proxy), proxy);
            });
        }
    }

    // What has ended, or is another server's, is nothing that the registry could find here. Looked for when there are twice as many as
    // the last time; not with the lock, which the registry takes under its own.
    void forget_ended(const CallContext& context) {
        std::vector<std::pair<std::string, Object>> all;
        {
            const std::lock_guard lock(proxies_mutex_);
            if (proxies_.size() < proxies_limit_) return;
            proxies_limit_ *= 2;    // for those who come meanwhile
            all.assign(proxies_.begin(), proxies_.end());
        }
        std::erase_if(all, [&](const auto& each) { return context.referent_of(each.second) != nullptr; });
        const std::lock_guard lock(proxies_mutex_);
        for (const auto& ended : all) proxies_.erase(ended.first);
        proxies_limit_ = std::max(kLeastLimit, 2 * proxies_.size());
    }

    static constexpr std::size_t kLeastLimit = 64;

    std::shared_ptr<const RegisteredType> type_;
    std::shared_ptr<void> instance_;
    std::mutex mutex_;
    std::mutex proxies_mutex_;
    std::map<std::string, Object, std::less<>> proxies_;
    std::size_t proxies_limit_ = kLeastLimit;
};

}    // namespace

ManagerType manager_type_of(const RegisteredType& registered) {
    const auto type = std::make_shared<const RegisteredType>(registered);
    ManagerType made;
    made.name = type->name;
    for (const ManagerMethod& method : type->methods) made.exposed.push_back(method.name);
    made.create = [type](Call& call) -> std::shared_ptr<Referent> {
        return std::make_shared<Instance>(type,
                                          bound(call, type->constructor.parameters, type->constructor.parameter_count),
                                          call.context);
    };
    made.slow = true;
    return made;
}

ManagerType manager_type_of(const RegisteredObject& object, const ManagerTypes& types) {
    const ManagerType* const base = types.find(object.type);
    if (base == nullptr || !base->create) {
        throw Error("the object registered as " + object.name + " is of a type " + object.type +
                    ", which is not registered: register the type first");
    }
    struct Shared {
        std::mutex mutex;
        std::shared_ptr<Referent> referent;
    };
    ManagerType made = *base;
    made.name = object.name;
    made.permanent = true;
    made.create = [create = base->create, type = object.type, args = object.args,
                   shared = std::make_shared<Shared>()](Call& call) {
        if (!call.args.empty() || (!call.kwargs.is_none() && !call.kwargs.empty())) {
            throw TypeError(std::string(call.method) + "() is there already, and takes no arguments");
        }
        const std::lock_guard lock(shared->mutex);
        if (shared->referent == nullptr) {
            Call making{type, {args.begin(), args.end()}, {}, call.context};
            shared->referent = create(making);
        }
        return shared->referent;
    };
    return made;
}

}    // namespace detail

void Codec<detail::RegisteredType>::encode(detail::Writer& writer, const detail::RegisteredType& type) {
    detail::encode(writer, type.name);
    detail::encode(writer, type.thread_safe);
    detail::encode(writer, type.keeps_proxies);
    detail::encode(writer, type.constructor.parameters);
    detail::encode_pointer(writer, type.constructor.make);
    writer.put(static_cast<std::uint64_t>(type.constructor.parameter_count));
    writer.write_length(type.methods.size());
    for (const detail::ManagerMethod& method : type.methods) {
        detail::encode(writer, method.name);
        detail::encode(writer, method.parameters);
        detail::encode_pointer(writer, method.call);
        writer.put(static_cast<std::uint64_t>(method.parameter_count));
    }
}

detail::RegisteredType Codec<detail::RegisteredType>::decode(detail::Reader& reader) {
    detail::RegisteredType type;
    type.name = detail::decode<std::string>(reader);
    type.thread_safe = detail::decode<bool>(reader);
    type.keeps_proxies = detail::decode<bool>(reader);
    type.constructor.parameters = detail::decode<std::vector<std::string>>(reader);
    type.constructor.make = detail::decode_pointer<detail::MakeThunk>(reader);
    type.constructor.parameter_count = reader.get<std::uint64_t>();
    const std::size_t count = reader.read_length(1);
    for (std::size_t i = 0; i < count; ++i) {
        detail::ManagerMethod method;
        method.name = detail::decode<std::string>(reader);
        method.parameters = detail::decode<std::vector<std::string>>(reader);
        method.call = detail::decode_pointer<detail::MethodThunk>(reader);
        method.parameter_count = reader.get<std::uint64_t>();
        type.methods.push_back(std::move(method));
    }
    return type;
}

void Codec<detail::RegisteredFunction>::encode(detail::Writer& writer, const detail::RegisteredFunction& function) {
    detail::encode(writer, function.name);
    detail::encode_pointer(writer, function.call);
}

detail::RegisteredFunction Codec<detail::RegisteredFunction>::decode(detail::Reader& reader) {
    detail::RegisteredFunction function;
    function.name = detail::decode<std::string>(reader);
    function.call = detail::decode_pointer<detail::UpdateThunk>(reader);
    return function;
}

}    // namespace multihull
